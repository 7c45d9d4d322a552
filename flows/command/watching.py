"""How a run is shown while it goes on: a bar a stage, read from the ledger and from what this process tells Prefect."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from flows.command import interrupt
from flows.command.show import terminal
from flows.command.show.run import WORDS, ledger_of
from tasks.base.errors import TransientError, UsageError
from tasks.base.words import counted
from tasks.runs import status
from tasks.runs.database import database_url
from tasks.stores.postgres.connection import Connection

LOOK = 0.5
"""Seconds between two looks."""
COLUMNS = (
    TextColumn("{task.description:<8}", markup=False),
    BarColumn(bar_width=16),
    MofNCompleteColumn(),
    TextColumn("{task.fields[note]}", markup=False),
    TimeElapsedColumn(),
)


@dataclass(frozen=True)
class Reading:
    """How far a stage is at a moment."""

    stage: str
    done: float
    """Batches, or targets, with the share of the one at work."""
    total: int
    rows: float
    at: float = 0.0
    """Seconds of the monotonic clock."""
    note: str = ""


def speed(first: Reading, now: Reading) -> tuple[float | None, float | None]:
    """Rows a second since ``first``, and the seconds that are left if it goes on like that; None where nothing tells."""
    seconds, done = now.at - first.at, now.done - first.done
    if seconds <= 0 or done <= 0:
        return None, None
    left = (now.total - now.done) * seconds / done if now.done < now.total else None
    return (now.rows - first.rows) / seconds, left


@contextmanager
def watching(run_id: str, database: str, quiet: bool) -> Iterator[None]:
    """Shows the stages as they move, on standard error. On no terminal a line a stage, at the end; with ``quiet`` nothing
    but where an approval is asked for."""
    interrupt.concerning(run_id, database)
    if not quiet:
        terminal.err.print(Text.assemble("run ", terminal.bold(run_id), ledger_of(database)))
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(run_id, database, quiet, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(5)


def _watch(run_id: str, database: str, quiet: bool, ended: threading.Event) -> None:
    from tasks.stores.postgres import pace
    from tasks.stores.postgres.connection import classified
    from tasks.stores.postgres.idle import Connections

    bars, firsts, latest = dict[str, TaskID](), dict[str, Reading](), dict[str, Reading]()
    told, before, url = False, None, database_url(database)
    with (
        closing(Connections(url, kept=True)) as connections,
        Progress(*COLUMNS, console=terminal.err, transient=False, disable=quiet) as progress,
    ):
        while not (last := ended.wait(LOOK)) or last:
            try:
                with classified("watch"), connections.connection("vecferry watch") as connection:
                    readings = [] if quiet else _readings(connection, run_id, url)
                    others = 0 if quiet else pace.others(connection)
                    told = told or _tell_where_to_approve(connection, run_id, progress)
            except (UsageError, TransientError):
                readings, others = [], 0  # no such run yet, or the server is restarting: shown at the next look
            now = time.monotonic()
            for reading in [replace(reading, at=now) for reading in readings]:
                name = WORDS.get(reading.stage, reading.stage)
                if name not in bars:
                    bars[name] = progress.add_task(name, total=reading.total, note="")
                    # What is there at the first look was done by an earlier start; the rest has begun since the last.
                    firsts[name] = reading if before is None else replace(reading, done=0, rows=0, at=before)
                if (known := latest.get(name)) and known.done == known.total and known.done == reading.done:
                    continue  # its speed is that until its end
                latest[name] = reading
                note = _note(firsts[name], reading, others)
                progress.update(bars[name], completed=reading.done, total=reading.total, note=note)
            before = now
            if last:
                return


def _note(first: Reading, now: Reading, others: int) -> str:
    rate, left = speed(first, now)
    parts = [
        now.note or (counted(round(now.rows), "row") if now.rows else ""),
        f"{rate:,.0f} rows/s" if rate else "",
        f"{timedelta(seconds=round(left))} left" if left is not None else "",
        f"gives way to {counted(others, 'other session')}" if others and now.done < now.total else "",
    ]
    return ", ".join(part for part in parts if part)


def _readings(connection: Connection, run_id: str, url: str) -> list[Reading]:
    """Every stage that has begun, in order."""
    from tasks.base import settings
    from tasks.runs import artifacts, holding, ledger
    from tasks.runs.run import Run
    from tasks.stores.postgres import hnsw

    record = ledger.find(connection, run_id)
    if record is None:
        return []
    run = Run(record.plan, url, settings.home())
    targets, rows = len(record.plan.targets), sum(t.collection.count for t in record.plan.targets)
    readings = {}
    for line in status.stages(connection, run_id):
        stage, done = line.name, line.done
        passed = rows * done / targets if stage in ("index", "catch_up") else line.rows  # they go over all rows
        readings[stage] = Reading(stage, done, done + line.pending + line.failed, passed)

    def moving(stage: str, share: float, note: str) -> None:
        """A stage without batches: the ledger has a target of it when that is done."""
        done = readings[stage].done if stage in readings else 0
        if done < targets and share < 1:
            readings[stage] = Reading(stage, done + share, targets, rows * (done + share) / targets, note=note)

    if at := hnsw.progress(connection, holding.application(run_id)):
        phase, share = at
        moving("index", share, f"{phase.removeprefix('building index: ')} {share:.0%}")
    for stage, bar in (("catch_up", "catch-up"), ("verify", "verify")):
        if (share_ := artifacts.share(run, bar)) is not None:
            moving(stage, share_, f"{share_:.0%}")
    return [readings[stage] for stage in status.STAGES if stage in readings]


def _tell_where_to_approve(connection: Connection, run_id: str, progress: Progress) -> bool:
    from tasks.runs import ledger

    record = ledger.find(connection, run_id)
    if record is None or not record.waiting or (address := interrupt.flow_run_address()) is None:
        return False
    progress.console.print(f"approve or reject at {address}")
    return True
