"""What is done, per run, stage and batch: the record that exit codes, reruns and resumption come from.

It lives in the schema ``vecferry`` of the target PostgreSQL. A batch is marked in the transaction that writes its
rows, so that neither is ever there without the other.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg

from tasks.base.errors import FatalError, Stopped, TransientError, UsageError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.runs import ledger_versions, locks
from tasks.runs import plan as plans
from tasks.runs.commands import command
from tasks.runs.plan import Plan
from tasks.stores.postgres.connection import Connection, connect

State = Literal["planned", "running", "failed", "verified", "cut_over", "rolled_back", "contracted"]
Verb = Literal["run", "snapshot", "cutover", "rollback", "contract", "catch-up", "verify"]
"""What may work on a run."""

_held: "dict[str, RunRecord]" = {}
"""The runs that this process is the sole runner of, as they were before."""
LOCK_WATCH = 1.0
"""Seconds between two looks at whether the run still holds its lock."""


@dataclass(frozen=True)
class Batch:
    """One unit of checkpoint, retry and rerun."""

    stage: str
    number: int
    status: Literal["pending", "done", "failed"]
    attempts: int
    rows: int
    quarantined: int
    error: str | None
    seconds: float
    detail: dict[str, Any]
    updated_at: datetime


@dataclass(frozen=True)
class RunRecord:
    """One run as the ledger knows it."""

    plan: Plan
    state: State
    error: str | None
    exit_status: int
    stop: str | None
    report: str | None
    cut_over_at: datetime | None
    created_at: datetime
    updated_at: datetime
    """The last change of the run or one of its batches."""
    gates: dict[str, Any] | None
    """What it is accepted with; None where 0.1.0 began it."""
    doing: Verb | None
    """The verb that works on it, or did when it was killed."""
    waiting: bool
    """Whether an approval is waited for, and is not too late yet."""
    at_work: bool
    """Whether a process works on it now: it holds the run's lock."""

    @property
    def run_id(self) -> str:
        return self.plan.run_id

    @property
    def switched(self) -> bool:
        """Whether people use what it made."""
        return self.state == "cut_over" or (self.state == "contracted" and self.cut_over_at is not None)

    @property
    def dropped(self) -> bool:
        """Whether it was contracted after a rollback: nothing of it is left."""
        return self.state == "contracted" and self.cut_over_at is None


def exists(connection: Connection) -> bool:
    """Whether this database has a ledger. Raises UsageError when it is newer than this program."""
    return ledger_versions.read(connection).version > 0


def start(connection: Connection, plan: Plan, given: set[str]) -> Plan:
    """Records a new run, or returns the frozen plan of the one with this ``run_id``.

    ``given`` names the parameters the user set. Raises UsageError when one of them differs from the frozen plan.
    """
    found = find(connection, plan.run_id)
    if found is None:
        connection.execute(
            "INSERT INTO vecferry.run (run_id, flow, plan) VALUES (%s, %s, %s::text::jsonb)",
            (plan.run_id, plan.request.flow, json.dumps(plan.as_json())),
        )
        return plan
    check_same(found.plan, plan.request, given)
    return found.plan


def check_same(frozen: Plan, asked: plans.Request, given: set[str]) -> None:
    """Raises UsageError when ``asked`` is another plan than the frozen one."""
    if frozen.request.flow != asked.flow:
        raise UsageError(f"run {frozen.run_id} is a {frozen.request.flow} run, not {asked.flow}: choose another run_id")
    if different := plans.differences(asked, frozen.request, given):
        raise UsageError(
            f"run {frozen.run_id} has another plan, and a plan is frozen: {'; '.join(different)}. "
            f"Leave these parameters out to resume it, or choose another run_id"
        )


def find(connection: Connection, run_id: str) -> RunRecord | None:
    """The run, or None."""
    if not exists(connection):
        return None
    # Through to_jsonb: whoever only reads finds a ledger of 0.1.0 as it is, without the columns that came later.
    row = connection.execute(
        "SELECT plan::text, state, error, exit_status, stop, report, cut_over_at, created_at, "
        "greatest(updated_at, (SELECT max(b.updated_at) FROM vecferry.batch b WHERE b.run_id = run.run_id)), "
        "to_jsonb(run) -> 'gates', to_jsonb(run) ->> 'doing', "
        "coalesce((to_jsonb(run) ->> 'waiting_until')::timestamptz > now(), false), "
        f"EXISTS (SELECT 1 FROM pg_locks WHERE {locks.IN_THIS_DATABASE} AND objid = hashtext(run_id)::oid) "
        "FROM vecferry.run WHERE run_id = %s",
        (run_id,),
    ).fetchone()
    return RunRecord(plans.from_json(json.loads(row[0])), *row[1:]) if row else None


def get(connection: Connection, run_id: str) -> RunRecord:
    """The run. Raises UsageError, with the runs there are, when there is none."""
    if found := find(connection, run_id):
        return found
    known = ", ".join(run_ids(connection)[:5]) or "none yet"
    raise UsageError(f"there is no run {run_id!r} in this database; the latest: {known}")


def clock(connection: Connection) -> datetime:
    """What time it is by the server's clock."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row
    return row[0]


def run_ids(connection: Connection) -> list[str]:
    """All runs, the latest first."""
    if not exists(connection):
        return []
    return [r[0] for r in connection.execute("SELECT run_id FROM vecferry.run ORDER BY created_at DESC").fetchall()]


def set_state(
    connection: Connection, run_id: str, state: State, error: str | None = None, exit_status: int | None = None
) -> None:
    """Moves the run to ``state``. Without an ``exit_status`` an unfinished run exits with 1 and any other with 0."""
    unfinished = state in ("planned", "running", "failed")
    connection.execute(
        "UPDATE vecferry.run SET state = %(state)s, error = %(error)s, exit_status = %(exit)s, updated_at = now(), "
        "cut_over_at = CASE WHEN %(state)s = 'cut_over' THEN coalesce(cut_over_at, now()) "
        "                   WHEN %(state)s = 'rolled_back' THEN NULL ELSE cut_over_at END WHERE run_id = %(run_id)s",
        {
            "state": state,
            "error": error,
            "exit": int(unfinished) if exit_status is None else exit_status,
            "run_id": run_id,
        },
    )


def end_badly(connection: Connection, before: RunRecord, kept: bool, error: str, exit_status: int) -> None:
    """Records that a verb did not do its work. What verification or the switch has made of the run by then stands;
    otherwise it is ``failed``, or with ``kept`` what it was before the verb began, unless a batch was to be loaded again."""
    kept = kept and all(b.status == "done" for b in batches(connection, before.run_id, "load"))
    state = before.state if kept else "failed"
    connection.execute(
        "UPDATE vecferry.run SET error = %(error)s, doing = NULL, waiting_until = NULL, updated_at = now(), "
        "exit_status = CASE WHEN state <> 'running' THEN exit_status ELSE %(exit)s END, "
        "report = CASE WHEN state <> 'running' THEN report WHEN %(kept)s THEN %(report)s ELSE report END, "
        "state = CASE WHEN state <> 'running' THEN state ELSE %(state)s END WHERE run_id = %(run_id)s",
        {
            "error": error,
            "exit": before.exit_status if kept else exit_status,
            "kept": kept,
            "report": before.report,
            "state": state,
            "run_id": before.run_id,
        },
    )


def set_error(connection: Connection, run_id: str, error: str | None) -> None:
    """Notes what the last verb met that works on a run that is built, or None; why a run failed is not overwritten."""
    connection.execute(
        "UPDATE vecferry.run SET error = %s, updated_at = now() WHERE run_id = %s AND state <> 'failed' "
        "AND error IS DISTINCT FROM %s",
        (error, run_id, error),
    )


def set_doing(connection: Connection, run_id: str, doing: Verb | None) -> None:
    """Notes the verb that works on the run; None when it has ended."""
    connection.execute("UPDATE vecferry.run SET doing = %s WHERE run_id = %s", (doing, run_id))


def set_waiting(connection: Connection, run_id: str, seconds: float | None) -> None:
    """Notes that an approval is waited for, for so long; None when it is not any more."""
    connection.execute(
        "UPDATE vecferry.run SET waiting_until = now() + make_interval(secs => %s) WHERE run_id = %s", (seconds, run_id)
    )


def set_gates(connection: Connection, run_id: str, gates: dict[str, Any]) -> None:
    """Keeps what the run is accepted with."""
    connection.execute("UPDATE vecferry.run SET gates = %s::text::jsonb WHERE run_id = %s", (json.dumps(gates), run_id))


def set_report(connection: Connection, run_id: str, report: str | None) -> None:
    connection.execute("UPDATE vecferry.run SET report = %s, updated_at = now() WHERE run_id = %s", (report, run_id))


def request_stop(connection: Connection, run_id: str, reason: str | None) -> None:
    """Asks every worker of the run to stop before its next batch; None takes that back."""
    connection.execute(
        "UPDATE vecferry.run SET stop = %s, updated_at = now() WHERE run_id = %s AND stop IS DISTINCT FROM %s",
        (reason, run_id, reason),
    )


def interrupt(connection: Connection, run_id: str) -> None:
    """Records that this process, which holds the run, was told to end, and asks its workers to stop. A run that had been
    verified before stays that, and one that has come to an end meanwhile stays as it is."""
    request_stop(connection, run_id, f"run {run_id} was interrupted")
    if before := _held.get(run_id):
        again = before.state == "rolled_back" and get(connection, run_id).doing == "cutover"
        end_badly(connection, before, before.state == "verified" or again, "interrupted", 1)


def check_stop(connection: Connection, run_id: str) -> None:
    """Raises Stopped when the run was asked to stop. Cancelling a Prefect task does not interrupt it; this does."""
    row = connection.execute("SELECT stop FROM vecferry.run WHERE run_id = %s", (run_id,)).fetchone()
    if row and row[0]:
        raise Stopped(row[0])


@contextmanager
def sole_runner(url: str, run_id: str) -> Iterator[None]:
    """Holds the run's advisory lock on a connection of its own, and ends what a killed runner left in the server. A ledger
    that is there is brought forward first.

    A server that restarts forgets the lock, so it is watched and taken again; when somebody else has it by then, the
    run is asked to stop. Raises UsageError when another process runs it.
    """
    with connect(url, f"vecferry lock {run_id}") as first:
        if exists(first):
            ledger_versions.bring_forward(first)
    connection = _locked(url, run_id)
    if connection is None:
        with connect(url, "vecferry status") as other:
            record = find(other, run_id)
        database = record.plan.request.database if record else DEFAULT_DATABASE
        look = command("status", run_id, database)
        raise UsageError(f"another process works on run {run_id}: wait for it, or see `{look}`")
    done = threading.Event()
    keeper = threading.Thread(target=_keep_lock, args=(connection, url, run_id, done), daemon=True)
    if before := find(connection, run_id):
        _held[run_id] = before
    try:
        _end_leftovers(connection, run_id)
        keeper.start()
        yield
    finally:
        _held.pop(run_id, None)
        done.set()
        if keeper.ident:
            keeper.join()
        with suppress(psycopg.OperationalError):  # the server is gone, and the lock with it
            # A server takes note of a closed connection in its own time; who comes next must not be refused meanwhile.
            connection.execute("SELECT pg_advisory_unlock_all()")
        connection.close()


def holds(run_id: str) -> bool:
    """Whether this process is the run's sole runner."""
    return run_id in _held


def _locked(url: str, run_id: str) -> Connection | None:
    connection = connect(url, f"vecferry lock {run_id}")
    row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (locks.RUNS, run_id)).fetchone()
    if row and row[0]:
        return connection
    connection.close()
    return None


def _keep_lock(connection: Connection, url: str, run_id: str, done: threading.Event) -> None:
    held: Connection | None = connection
    while not done.wait(LOCK_WATCH):
        try:
            if held is None:
                held = _locked(url, run_id)
                if held is None:
                    with connect(url, f"vecferry lock {run_id}") as other:
                        request_stop(other, run_id, f"run {run_id} lost its lock to another process")
                    return
            held.execute("SELECT 1")
        except (psycopg.OperationalError, TransientError):
            held = None  # the server is restarting: asked again in a moment
    if held is not None and held is not connection:
        held.close()


def application(run_id: str) -> str:
    """The application_name of a run's connections, by which leftovers of a killed runner are known."""
    return f"vecferry {run_id}"


def end_connections(connection: Connection, run_id: str) -> int:
    """Ends what the run's connections are doing in the server, and returns how many there were."""
    return len(
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = %s AND pid <> pg_backend_pid() AND datname = current_database()",
            (application(run_id),),
        ).fetchall()
    )


def _end_leftovers(connection: Connection, run_id: str) -> None:
    """A killed client's query goes on in the server for a while and would hold locks against its successor."""
    for _ in range(100):
        if not end_connections(connection, run_id):
            return
        time.sleep(0.1)
    raise FatalError(f"run {run_id}: connections of an earlier runner do not end; see pg_stat_activity")


def add(connection: Connection, run_id: str, stage: str, entries: Iterable[tuple[int, dict[str, Any]]]) -> None:
    """Makes pending batches; those that are there stay as they are."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO vecferry.batch (run_id, stage, batch, status, detail) VALUES (%s, %s, %s, 'pending', %s::text::jsonb) "
            "ON CONFLICT DO NOTHING",
            [(run_id, stage, number, json.dumps(detail)) for number, detail in entries],
        )


def batches(connection: Connection, run_id: str, stage: str | None = None) -> list[Batch]:
    """The run's batches, of one stage or all, in order."""
    rows = connection.execute(
        "SELECT stage, batch, status, attempts, rows, quarantined, error, seconds, detail, updated_at FROM vecferry.batch "
        "WHERE run_id = %(run_id)s AND (%(stage)s::text IS NULL OR stage = %(stage)s) ORDER BY stage, batch",
        {"run_id": run_id, "stage": stage},
    ).fetchall()
    return [Batch(*row) for row in rows]


def is_done(connection: Connection, run_id: str, stage: str, number: int) -> bool:
    """Whether the batch is done; locks its row until the transaction ends, so that two workers cannot both do it."""
    row = connection.execute(
        "SELECT status FROM vecferry.batch WHERE run_id = %s AND stage = %s AND batch = %s FOR UPDATE",
        (run_id, stage, number),
    ).fetchone()
    return bool(row and row[0] == "done")


def done(
    connection: Connection,
    run_id: str,
    stage: str,
    number: int,
    *,
    rows: int,
    seconds: float,
    quarantined: int = 0,
    detail: dict[str, Any] | None = None,
) -> None:
    """Marks the batch; call it in the transaction that wrote the rows."""
    connection.execute(
        "INSERT INTO vecferry.batch AS b (run_id, stage, batch, status, attempts, rows, quarantined, seconds, detail) "
        "VALUES (%s, %s, %s, 'done', 1, %s, %s, %s, %s::text::jsonb) ON CONFLICT (run_id, stage, batch) DO UPDATE SET "
        "status = 'done', attempts = b.attempts + 1, rows = excluded.rows, quarantined = excluded.quarantined, "
        "error = NULL, seconds = excluded.seconds, detail = b.detail || excluded.detail, updated_at = now()",
        (run_id, stage, number, rows, quarantined, seconds, json.dumps(detail or {})),
    )


def failed(connection: Connection, run_id: str, stage: str, number: int, error: str) -> None:
    """Marks the batch as failed, with why."""
    connection.execute(
        "INSERT INTO vecferry.batch AS b (run_id, stage, batch, status, attempts, error) VALUES (%s, %s, %s, 'failed', 1, %s) "
        "ON CONFLICT (run_id, stage, batch) DO UPDATE SET status = 'failed', attempts = b.attempts + 1, error = excluded.error, "
        "updated_at = now() WHERE b.status <> 'done'",
        (run_id, stage, number, error[:2000]),
    )


def forget_pending(connection: Connection, run_id: str, stage: str) -> None:
    """Removes the batches of a stage that nobody has done."""
    connection.execute(
        "DELETE FROM vecferry.batch WHERE run_id = %s AND stage = %s AND status = 'pending'", (run_id, stage)
    )


def reopen(connection: Connection, run_id: str, stage: str, numbers: list[int] | None = None) -> None:
    """Makes batches pending again: those named, or all of the stage."""
    connection.execute(
        "UPDATE vecferry.batch SET status = 'pending', updated_at = now() WHERE run_id = %(run_id)s AND stage = %(stage)s "
        "AND (%(numbers)s::int[] IS NULL OR batch = ANY(%(numbers)s))",
        {"run_id": run_id, "stage": stage, "numbers": numbers},
    )
