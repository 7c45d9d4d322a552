"""The whole of ``vecferry run chroma-to-pgvector``: what of it is not snapshot, load or index, and its peak memory."""

import os
import time
from dataclasses import dataclass

from benchmarks import fixtures
from benchmarks.command import Ran, vecferry
from benchmarks.figures import Figure

TINY = 200
"""Rows of the run whose time is all start-up."""
WORK = ("snapshot", "load", "index")
REST = ("catch_up", "verify")


@dataclass(frozen=True)
class Whole:
    """One run over so many rows."""

    rows: int
    ran: Ran

    @property
    def other(self) -> float:
        return self.ran.seconds - sum(map(self.ran.took, WORK))


def whole(rows: int, source: list[str], url: str, *, expect: tuple[int, ...] = (0,)) -> Whole:
    """Runs the migration of that many rows into a fresh VECFERRY_HOME."""
    name = f"whole-{rows}-{time.time_ns()}"
    options = [part for option in [*source, f"collections=[{fixtures.COLLECTION}]"] for part in ("-p", option)]
    return Whole(rows, vecferry(["run", "chroma-to-pgvector", "--run-id", name, *options], name, url, expect=expect))


def shares(run: Whole, tiny: Whole, limit: float | None) -> list[Figure]:
    """What is not snapshot, load or index, as a share of the whole; start-up, which a run of 200 rows shows, is taken off
    both. Catching up reads the whole source once more, beside the index: where both want the same cores, that makes the
    index slower, so its own share is told too."""
    total, other = run.ran.seconds - tiny.other, run.other - tiny.other
    text = ", ".join(f"{stage.replace('_', ' ')} {run.ran.took(stage):.0f} s" for stage in (*WORK, *REST))
    note = f"whole {run.ran.seconds:.0f} s, start-up {tiny.other:.0f} s; {text}"
    catching_up = 100 * run.ran.took("catch_up") / total
    return [
        Figure("all else: share of the whole", run.rows, 100 * other / total, limit, unit=" %", note=note),
        Figure("catching up, beside the index: share of the whole", run.rows, catching_up, unit=" %"),
    ]


def memory(runs: list[Whole]) -> list[Figure]:
    """Peak memory of the process, and what it grows by from the fewest to the most rows."""
    sized = sorted((run for run in runs if run.rows > TINY), key=lambda run: run.rows)
    least, most = sized[0], sized[-1]
    limits = {most.rows: 600.0}
    figures = [
        Figure(
            "peak memory",
            run.rows,
            run.ran.peak,
            limits.get(run.rows),
            unit=" MB",
            note=f"source behind `chroma run`; Prefect's own server {run.ran.server_peak:,.0f} MB more",
        )
        for run in runs
    ]
    if most is not least:
        note = f"peak memory to that at {least.rows:,} rows"
        figures.append(Figure("growth of peak memory", most.rows, most.ran.peak / least.ran.peak, 1.1, note=note))
    return figures


def in_process(rows: int, directory: str, url: str) -> Figure:
    """Peak memory where the source is a directory: Chroma then runs in our process and loads its whole index there.

    A smoke run over the first rows shows it, since Chroma loads the index to list the ids alone.
    """
    run = whole(rows, [f"chroma.path={os.path.abspath(directory)}", "limit=2000"], url, expect=(0, 3))
    note = "source is a directory: Chroma's whole index is in this process, whatever reads it"
    return Figure("peak memory, Chroma in process", rows, run.ran.peak, unit=" MB", note=note)
