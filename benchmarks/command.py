"""The real ``vecferry`` command: how long it took, where its time went by the ledger, and the peak memory of its process."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from benchmarks import fixtures
from benchmarks.elsewhere import Enter

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Ran:
    """One run of the command."""

    seconds: float
    spans: Mapping[str, tuple[float, float]]
    """Stage → when its first batch began and its last ended, in seconds since the command was started."""
    peak: float
    """Megabytes of the vecferry process."""
    server_peak: float
    """Megabytes of Prefect's server, which it starts."""

    def took(self, stage: str) -> float:
        """Seconds that a stage took; 0 where there was none."""
        start, end = self.spans.get(stage, (0.0, 0.0))
        return end - start


def vecferry(
    arguments: list[str],
    run_id: str,
    url: str,
    *,
    expect: tuple[int, ...] = (0,),
    keep: bool = False,
    environment: Mapping[str, str] | None = None,
    enter: Enter | None = None,
) -> Ran:
    """Runs ``vecferry ARGUMENTS``, watching its memory. VECFERRY_HOME is a fresh one, unless ``keep``."""
    home = fixtures.PLACE.absolute() / "home"
    if not keep:
        shutil.rmtree(home, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "vecferry"), *arguments, "--json"]
    given = {**os.environ, "DATABASE_URL": url, "VECFERRY_HOME": str(home), **(environment or {})}
    started = time.time()
    process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True, preexec_fn=enter)
    peaks = _watched(process)
    ended, output = time.time(), process.stdout.read() if process.stdout else ""
    if process.returncode not in expect:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}: {output}")
    return Ran(
        ended - started,
        _spans(url, run_id, started),
        peaks.pop(process.pid, 0) / MEGABYTE,
        max(peaks.values(), default=0) / MEGABYTE,
    )


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


def _spans(url: str, run_id: str, started: float) -> dict[str, tuple[float, float]]:
    # Batches' own seconds add up over workers; from the first start to the last end is the wall clock.
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT stage, extract(epoch FROM min(updated_at - seconds * interval '1 s'))::float, "
            "extract(epoch FROM max(updated_at))::float FROM vecferry.batch WHERE run_id = %s GROUP BY stage",
            (run_id,),
        ).fetchall()
    return {stage: (first - started, last - started) for stage, first, last in rows}
