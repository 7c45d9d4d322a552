"""The real ``vecferry run``: where its time goes, by the ledger, and the peak memory of its process."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from benchmarks import fixtures
from benchmarks.figures import Figure

TINY = 200
"""Rows of the run whose time is all start-up."""
STAGES = ("snapshot", "load", "index")
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Whole:
    """One run of the command."""

    rows: int
    seconds: float
    work: dict[str, float]
    """Seconds from the start of a stage's first batch to the end of its last."""
    rest: dict[str, float]
    """Seconds of the parts of catch-up and verify, which the ledger tells too."""
    peak: float
    """Megabytes of the vecferry process."""
    server_peak: float
    """Megabytes of Prefect's server, which it starts."""

    @property
    def other(self) -> float:
        return self.seconds - sum(self.work.values())


def whole(rows: int, source: list[str], url: str, *, expect: tuple[int, ...] = (0,)) -> Whole:
    """Runs ``vecferry run chroma-to-pgvector`` on that many rows into a fresh VECFERRY_HOME, watching its memory."""
    home, name = fixtures.PLACE.absolute() / "home-whole", f"whole-{rows}-{time.time_ns()}"
    shutil.rmtree(home, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "vecferry"), "run", "chroma-to-pgvector", "--run-id", name, "--json"]
    options = [part for option in [*source, f"collections=[{fixtures.COLLECTION}]"] for part in ("-p", option)]
    environment = {**os.environ, "DATABASE_URL": url, "VECFERRY_HOME": str(home)}
    started = time.time()
    process = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True)
    peaks = _watched(process)
    ended, output = time.time(), process.stdout.read() if process.stdout else ""
    if process.returncode not in expect:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}: {output}")
    shutil.rmtree(home, ignore_errors=True)
    spans = _spans(url, name)
    return Whole(
        rows,
        ended - started,
        {stage: spans[stage] for stage in STAGES if stage in spans},
        {stage: spans[stage] for stage in ("catch_up", "verify") if stage in spans},
        peaks.pop(process.pid, 0) / MEGABYTE,
        max(peaks.values(), default=0) / MEGABYTE,
    )


def shares(run: Whole, tiny: Whole, limit: float | None) -> list[Figure]:
    """What is not snapshot, load or index, as a share of the whole; start-up, which a run of 200 rows shows, is taken off
    both. Catching up reads the whole source once more, beside the index: where both want the same cores, that makes the
    index slower, so its own share is told too."""
    total, other = run.seconds - tiny.other, run.other - tiny.other
    catch_up = run.rest.get("catch_up", 0.0)
    spans = {**run.work, **run.rest}
    said = ", ".join(f"{stage.replace('_', ' ')} {seconds:.0f} s" for stage, seconds in spans.items())
    note = f"whole {run.seconds:.0f} s, start-up {tiny.other:.0f} s; {said}"
    share = 100 * other / total
    return [
        Figure("all else: share of the whole", run.rows, share, limit, unit=" %", note=note),
        Figure("catching up, beside the index: share of the whole", run.rows, 100 * catch_up / total, unit=" %"),
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
            run.peak,
            limits.get(run.rows),
            unit=" MB",
            note=f"source behind `chroma run`; Prefect's own server {run.server_peak:,.0f} MB more",
        )
        for run in runs
    ]
    if most is not least:
        note = f"peak memory to that at {least.rows:,} rows"
        figures.append(Figure("growth of peak memory", most.rows, most.peak / least.peak, 1.1, note=note))
    return figures


def in_process(rows: int, directory: str, url: str) -> Figure:
    """Peak memory where the source is a directory: Chroma then runs in our process and loads its whole index there.

    A smoke run over the first rows shows it, since Chroma loads the index to list the ids alone.
    """
    run = whole(rows, [f"chroma.path={os.path.abspath(directory)}", "limit=2000"], url, expect=(0, 3))
    note = "source is a directory: Chroma's whole index is in this process, whatever reads it"
    return Figure("peak memory, Chroma in process", rows, run.peak, unit=" MB", note=note)


def _watched(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Peak memory in bytes of the process and of each of its Python children, by pid; waits for its end."""
    peaks: dict[int, int] = {}
    me = psutil.Process(process.pid)
    children, looked = [], 0.0
    while process.poll() is None:
        if time.monotonic() > looked + 2:
            try:
                children = [c for c in me.children() if "prefect" in " ".join(c.cmdline())]
            except psutil.Error:
                children = []
            looked = time.monotonic()
        for watched in (me, *children):
            try:
                peaks[watched.pid] = max(peaks.get(watched.pid, 0), _peak(watched))
            except (psutil.Error, OSError, StopIteration):  # it ended while we looked
                continue
        time.sleep(0.1)
    return peaks


def _peak(process: psutil.Process) -> int:
    """The most it ever had in memory where the system keeps that (Linux), else what it has now."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return int(process.memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _spans(url: str, run_id: str) -> dict[str, float]:
    # Batches' own seconds add up over workers; from the first start to the last end is the wall clock.
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT stage, extract(epoch FROM max(updated_at) - min(updated_at - seconds * interval '1 s'))::float "
            "FROM vecferry.batch WHERE run_id = %s GROUP BY stage",
            (run_id,),
        ).fetchall()
    return dict(found)
