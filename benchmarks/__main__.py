"""Measures, and prints the table: ``python -m benchmarks [--rows 50000 200000]``."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator

from benchmarks import figures, fixtures, stages, whole
from benchmarks.figures import Figure
from tests.servers import Served, chroma_server

FULL = (50_000, 200_000)
PARTS = ("snapshot", "load", "index", "whole", "directory")


def measure(rows: list[int], parts: set[str]) -> Iterator[Figure]:
    """All figures for these numbers of rows, as they are measured."""
    runs: list[whole.Whole] = []
    with fixtures.postgres() as url:
        if "whole" in parts:
            with chroma_server(fixtures.directory(whole.TINY)) as server:
                whole.whole(whole.TINY, _over(server), url)  # what a first start compiles is no start-up of the next
                tiny = whole.whole(whole.TINY, _over(server), url)
        for count in rows:
            with chroma_server(fixtures.directory(count)) as server:
                yield from _stages(count, parts, server.port, url)
                if "whole" in parts:
                    runs.append(whole.whole(count, _over(server), url))
                    yield from whole.shares(runs[-1], tiny, 20 if count == max(FULL) else None)
        if "whole" in parts:
            yield from whole.memory([tiny, *runs])
        if "directory" in parts:
            for count in rows:
                yield whole.in_process(count, fixtures.directory(count), url)


def _stages(rows: int, parts: set[str], port: int, url: str) -> Iterator[Figure]:
    if not parts & {"snapshot", "load", "index"}:
        return
    home = fixtures.PLACE.absolute() / "home-stages"
    shutil.rmtree(home, ignore_errors=True)
    with stages.environment(url, str(home)):
        run = stages.begun(port, f"stages-{rows}-{os.getpid()}")
        yield from stages.snapshot_figures(run, port, rows)
        if parts & {"load", "index"}:
            yield from stages.load_figures(run, url, rows)
        if "index" in parts:
            yield from stages.index_figures(run, rows)
        stages.drop(run)
    shutil.rmtree(home, ignore_errors=True)


def _over(server: Served) -> list[str]:
    return ["chroma.host=127.0.0.1", f"chroma.port={server.port}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=list(FULL), help="sizes of the collections")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="measure these parts alone")
    chosen = parser.parse_args()
    fixtures.PLACE.mkdir(exist_ok=True)
    found: list[Figure] = []
    for figure in measure(sorted(chosen.rows), set(chosen.only)):
        print(figures.line(figure), file=sys.stderr, flush=True)
        found.append(figure)
    print(figures.table(found))


if __name__ == "__main__":
    main()
