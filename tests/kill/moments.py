"""The commands of a run's life, the stages that each goes through, and the moments at which it is killed there."""

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from tasks.catch_up import PASSES
from tests.kill.processes import Place, Warm

RUN = "chaos"
Spent = dict[tuple[str, str], float]
"""(step, stage) → seconds."""


@dataclass(frozen=True)
class Step:
    """One command of a cycle, and in which stages of it how many kills are planned."""

    name: str
    arguments: tuple[str, ...]
    kills: tuple[tuple[str, int], ...]
    run_id: str = RUN

    @property
    def verb(self) -> str:
        return self.name.split()[0]


ORDER = (
    "begin",
    "list",
    "snapshot",
    "load",
    "index",
    "catch up",
    "verify",
    "verified",
    "cutover",
    "rollback",
    "contract",
)
SWITCH = (("begin", 1), ("catch up", 1), ("verify", 1), ("cutover", 3))
BACK = (("begin", 1), ("rollback", 4))
BUILD = (
    ("begin", 3),
    ("list", 2),
    ("snapshot", 6),
    ("load", 6),
    ("index", 5),
    ("catch up", 2),
    ("verify", 2),
    ("verified", 1),
)


def drawn(chance: random.Random, life: list[Step], kills: int) -> dict[str, list[str]]:
    """The stages in which each step of a cycle is killed: at most ``kills`` of those that its steps plan."""
    planned = [(step.name, stage) for step in life for stage, count in step.kills for _ in range(count)]
    chosen = sorted(chance.sample(range(len(planned)), min(kills, len(planned))))
    return {step.name: [planned[i][1] for i in chosen if planned[i][0] == step.name] for step in life}


def stage_of(connection: "psycopg.Connection[Any]", run_id: str, command: str, since: Any, targets: int) -> str:
    """Where the process that started at ``since`` is, by its lock and the ledger."""
    kept = connection.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND datname = current_database() AND application_name = %s AND backend_start >= %s",
        (f"vecferry lock {run_id}", since),
    ).fetchone()
    if not kept or not kept[0]:
        return "begin"
    if command in ("rollback", "contract"):
        return command
    rows = connection.execute(
        "SELECT stage, count(*), count(*) FILTER (WHERE status <> 'done'), count(*) FILTER (WHERE updated_at >= %s "
        "AND NOT (detail ->> 'settled' IS NOT DISTINCT FROM 'false' AND (detail ->> 'passes')::int < %s)) "
        "FROM vecferry.batch WHERE run_id = %s GROUP BY stage",
        (since, PASSES, run_id),
    ).fetchall()
    total, left, fresh = ({row[0]: row[column] for row in rows} for column in (1, 2, 3))
    if command == "run":
        if total.get("list", 0) < targets:
            return "list"
        if left.get("snapshot"):
            return "snapshot"
        if total["list"] < 2 * targets:
            return "list"
        if not total.get("load") or left.get("load"):
            return "load"
        if total.get("index", 0) < targets:
            return "index"
    if fresh.get("catch_up", 0) < targets:
        return "catch up"
    if fresh.get("verify", 0) < targets:
        return "verify"
    return "verified" if command == "run" else "cutover"


@dataclass(frozen=True)
class Watched:
    """A command that was started, and a connection that tells how far it has come."""

    step: Step
    process: "subprocess.Popen[str] | Warm"
    connection: "psycopg.Connection[Any]"
    since: Any
    """When it was started, by the clock of the database."""
    targets: int

    def stage(self) -> str:
        try:
            return stage_of(self.connection, self.step.run_id, self.step.verb, self.since, self.targets)
        except psycopg.errors.UndefinedTable:
            return "begin"

    def waits(self) -> bool:
        """Whether it waits for somebody's lock."""
        row = self.connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s "
            "AND wait_event_type = 'Lock'",
            (f"vecferry {self.step.run_id}",),
        ).fetchone()
        return bool(row and row[0])


@contextmanager
def started(place: Place, step: Step, targets: int = 1, cold: bool = False) -> Iterator[Watched]:
    """The step's command, which is over when the body is left: killed, unless it had finished."""
    with place.connection() as connection:
        since = connection.execute("SELECT clock_timestamp()").fetchone()
        assert since
        process = place.start(*step.arguments, cold=cold)
        try:
            yield Watched(step, process, connection, since[0], targets)
        finally:
            process.kill()
            process.wait()


def hit(
    watched: Watched,
    stage: str | None,
    chance: random.Random,
    spent: Spent,
    *,
    measuring: bool,
    in_transaction: bool = False,
) -> str:
    """Waits for the moment to kill: a random one of those that ``spent`` has for the stage, or one in which the switch's
    transaction waits for somebody; None: until it is over. Returns the stage that the process is in then; ``measuring`` adds to
    ``spent``."""
    step, process = watched.step, watched.process
    kill_at, entered, seen = None, time.monotonic(), "begin"
    while not (ended := process.poll() is not None) and (kill_at is None or time.monotonic() < kill_at):
        now = watched.stage()
        if now != seen:
            if measuring:
                spent[step.name, seen] = spent.get((step.name, seen), 0) + time.monotonic() - entered
            seen, entered = now, time.monotonic()
            if kill_at is not None and not in_transaction:
                kill_at = 0  # the stage was over before its moment came: now, not some stages later
        # A stage that was done before the last kill is passed in a blink: the next one will do.
        if kill_at is None and stage and ORDER.index(now) >= ORDER.index(stage):
            if not in_transaction:
                kill_at = entered + chance.uniform(0, 1) * spent.get((step.name, now), 0.3)
            elif watched.waits():
                kill_at = 0
        time.sleep(0.01)
    if ended and measuring:
        spent[step.name, seen] = spent.get((step.name, seen), 0) + time.monotonic() - entered
    return seen
