"""Measures, and prints the table: ``python -m benchmarks [--rows 50000 200000] [--only PART …]``."""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator

from benchmarks import figures, fixtures, images, live, models, points, searching, service, stages, texts, whole, writes
from benchmarks.figures import Figure
from benchmarks.turns import environment
from tests.helpers.servers import Served, chroma_server

FULL = (50_000, 200_000)
CHROMA = ("snapshot", "load", "index", "whole", "directory")
LIVE = ("peers", "copy", "readers", "live-memory", "limits")
SEARCH = ("search",)
IMAGES = ("images",)
POINTS = ("points",)
MODELS = ("models",)
SERVICE = ("service",)
WRITES = ("writes",)
ALL = CHROMA + LIVE + SEARCH + IMAGES + POINTS + MODELS + SERVICE + WRITES


def chroma(rows: list[int], parts: set[str], url: str) -> Iterator[Figure]:
    """The figures of chroma-to-pgvector for these numbers of rows."""
    runs: list[whole.Whole] = []
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


def text(rows: int, parts: set[str], url: str) -> Iterator[Figure]:
    """The figures of text-384-to-1536 for tables of that many rows."""
    with texts.provider() as base_url:
        if "peers" in parts:
            yield from live.speed(url, base_url, rows)
        if "copy" in parts:
            yield live.copy(url, base_url, rows)
        if "live-memory" in parts:
            yield from live.memory(url, base_url, [rows // 5, rows])
    if "readers" in parts:
        yield from live.readers(rows)
    if "limits" in parts:
        yield from live.limits(url)


def _stages(rows: int, parts: set[str], port: int, url: str) -> Iterator[Figure]:
    if not parts & {"snapshot", "load", "index"}:
        return
    home = fixtures.PLACE.absolute() / "home-stages"
    shutil.rmtree(home, ignore_errors=True)
    with environment(DATABASE_URL=url, VECFERRY_HOME=str(home)):
        run = stages.begun(port, f"stages-{rows}-{time.time_ns()}")
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
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=list(FULL),
        help="sizes of the collections; the least is that of the tables",
    )
    parser.add_argument("--only", choices=ALL, nargs="+", default=list(ALL), help="measure these parts alone")
    chosen = parser.parse_args()
    rows, parts = sorted(chosen.rows), set(chosen.only)
    fixtures.PLACE.mkdir(exist_ok=True)
    result: list[Figure] = []

    def measured() -> Iterator[Figure]:
        if parts & set(IMAGES):
            yield from images.images()
        if not parts - set(IMAGES):
            return
        with fixtures.postgres() as url:
            if parts & set(CHROMA):
                yield from chroma(rows, parts, url)
            if parts & set(LIVE):
                yield from text(rows[0], parts, url)
            if parts & set(SEARCH):
                yield from searching.searching(url)
            if parts & set(POINTS):
                yield from points.points(url)
            if parts & set(MODELS):
                yield from models.models(url, rows[0])
            if parts & set(SERVICE):
                yield from service.service(url)
            if parts & set(WRITES):
                yield from writes.writes(url)

    for figure in measured():
        print(figures.line(figure), file=sys.stderr, flush=True)
        result.append(figure)
    print(figures.table(result))


if __name__ == "__main__":
    main()
