"""How far one has to read to follow a batch through load: the files of this repository that it enters, and how often it moves
from one to another, by calls and returns. ``python -m benchmarks.moves [--path]`` prints the table.

Counted is the second of two batches, without Prefect; the first one has imported and connected what is kept.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import fixtures, texts
from benchmarks.turns import environment
from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.shared import Migration
from flows.forms.text_384_to_1536 import Text384To1536
from tasks import load, snapshot
from tasks.base.settings import DEFAULT_DATABASE
from tasks.begin import begin
from tasks.runs import checkpoints
from tasks.runs.run import Run, open_run

ROOT = str(Path(__file__).resolve().parents[1])
OURS = tuple(f"{ROOT}/{folder}/" for folder in ("flows", "tasks", "sql"))
BATCH = 30
"""Rows. A step that is repeated for every row, or every few, shows in the moves."""


@dataclass(frozen=True)
class Way:
    """The way of one batch."""

    name: str
    files: list[str]
    """One entry for each file that is entered, in order; a file that is come back to is there again."""
    most_files: int
    most_moves: int

    @property
    def entered(self) -> list[str]:
        """Each file once, in the order in which it is first entered."""
        return list(dict.fromkeys(self.files))

    @property
    def moves(self) -> int:
        return len(self.files) - 1

    @property
    def holds(self) -> bool:
        return len(self.entered) <= self.most_files and self.moves <= self.most_moves


def followed(do: Callable[[], Any]) -> list[str]:
    """The files of this repository that this thread is in, one after the other, while it does that."""
    files: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            file = frame.f_code.co_filename
        elif event == "return" and frame.f_back:
            file = frame.f_back.f_code.co_filename
        else:
            return
        if file.startswith(OURS) and (not files or files[-1] != file):
            files.append(file)

    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(None)
    return [file.removeprefix(f"{ROOT}/") for file in files]


def second_batch(parameters: Migration, run_id: str) -> list[str]:
    """The way of the second batch of a new run through load."""
    begin(parameters.request(), run_id, parameters.given())
    run = open_run(run_id, DEFAULT_DATABASE)
    with run.kept_open():
        load.expand(run)
        snapshot.list_ids(run, 0)
        first, second = _numbers(run, "snapshot")
        snapshot.snapshot(run, [first, second])
        snapshot.finish(run)
        load.prepare(run)
        done = [load.load(run, [first]).rows]
        files = followed(lambda: done.append(load.load(run, [second]).rows))
    assert done == [BATCH, BATCH], f"{run_id}: batches of {BATCH} rows were to be loaded, and {done} were"
    return files


def carried(directory: str) -> Way:
    """Of chroma-to-pgvector, from a directory of two batches, into the empty database and home of the environment."""
    options: dict[str, Any] = {"chroma": {"path": directory}, "batch_rows": BATCH}
    return Way("chroma-to-pgvector", second_batch(ChromaToPgvector.model_validate(options), "carried"), 14, 120)


def embedded(layout: str, url: str) -> Way:
    """Of text-384-to-1536 in the database of the environment, which is empty, as is its home: so vectors are made."""
    texts.make_table(url, "docs", 2 * BATCH)
    target = {"table": "docs", "text": "content"}
    options = {"targets": [target], "layout": layout, "embedder": "hashing/1536", "batch_rows": BATCH}
    return Way(f"text-384-to-1536, {layout}", second_batch(Text384To1536.model_validate(options), layout), 18, 150)


def ways() -> Iterator[Way]:
    """One of each migration, and of each layout of live tables."""
    with _place():
        yield carried(fixtures.directory(2 * BATCH))
    for layout in ("side_table", "column"):
        with _place() as url:
            yield embedded(layout, url)


@contextmanager
def _place() -> Iterator[str]:
    """An empty database, which it yields the URL of, and an empty VECFERRY_HOME."""
    home = fixtures.PLACE.absolute() / "home-moves"
    shutil.rmtree(home, ignore_errors=True)
    with fixtures.postgres() as url, environment(DATABASE_URL=url, VECFERRY_HOME=str(home)):
        yield url
    shutil.rmtree(home)


def _numbers(run: Run, stage: str) -> list[int]:
    with run.connection() as connection:
        return [batch.number for batch in checkpoints.batches(connection, run.run_id, stage)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moves", description=__doc__)
    parser.add_argument("--path", action="store_true", help="print the files in the order of the way too")
    chosen = parser.parse_args()
    fixtures.PLACE.mkdir(exist_ok=True)
    result = list(ways())
    print("| one batch through load | files | limit | moves | limit | holds |\n|---|---:|---:|---:|---:|---|")
    for way in result:
        counts = f"{len(way.entered)} | ≤ {way.most_files} | {way.moves} | ≤ {way.most_moves}"
        print(f"| {way.name} | {counts} | {'yes' if way.holds else '**no**'} |")
    for way in result if chosen.path else []:
        print("", way.name, *(f"    {file}" for file in way.files), sep="\n")


if __name__ == "__main__":
    main()
