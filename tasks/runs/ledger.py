"""What is known of each run: the record that exit codes, reruns and resumption come from.

It lives in the schema ``vecferry`` of the target PostgreSQL; tasks.runs.checkpoints has the batches of the runs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tasks.base.errors import UsageError
from tasks.runs import checkpoints, ledger_versions, locks, plan as plans
from tasks.runs.plan import Plan
from tasks.stores.postgres.connection import Connection, expressible

State = Literal["planned", "running", "failed", "verified", "cut_over", "rolled_back", "contracted"]
Verb = Literal["run", "snapshot", "cutover", "rollback", "contract", "catch-up", "verify"]
"""What may work on a run."""


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
    record = find(connection, plan.run_id)
    if record is None:
        connection.execute(
            "INSERT INTO vecferry.run (run_id, flow, plan) VALUES (%s, %s, %s::text::jsonb)",
            (plan.run_id, plan.request.flow, json.dumps(plan.as_json())),
        )
        return plan
    check_same(record.plan, plan.request, given)
    return record.plan


def check_same(frozen: Plan, asked: plans.Request, given: set[str]) -> None:
    """Raises UsageError when ``asked`` is another plan than the frozen one."""
    if frozen.request.flow != asked.flow:
        raise UsageError(f"run {frozen.run_id} is a {frozen.request.flow} run, not {asked.flow}: choose another run_id")
    if different := plans.differences(asked, frozen.request, given):
        raise UsageError(
            f"run {frozen.run_id} has another plan, and a plan is frozen: {'; '.join(different)}. Leave these "
            "parameters out to resume the run, or choose another run_id"
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
        prepare=True,
    ).fetchone()
    return RunRecord(plans.from_json(json.loads(row[0])), *row[1:]) if row else None


def get(connection: Connection, run_id: str) -> RunRecord:
    """The run. Raises UsageError, with the runs there are, when there is none."""
    if record := find(connection, run_id):
        return record
    latest = ", ".join(run_ids(connection)[:5])
    known = f"the latest: {latest}" if latest else "it has no runs yet"
    raise UsageError(f"there is no run {run_id!r} in this database; {known}")


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
            "error": error and expressible(connection, error),
            "exit": int(unfinished) if exit_status is None else exit_status,
            "run_id": run_id,
        },
    )


def become(connection: Connection, run_id: str, state: State, forgotten: Sequence[str] = ()) -> None:
    """Moves the run to ``state``; of the stages ``forgotten`` no batch is done any more."""
    connection.execute("DELETE FROM vecferry.batch WHERE run_id = %s AND stage = ANY(%s)", (run_id, list(forgotten)))
    set_state(connection, run_id, state)


def end_badly(connection: Connection, before: RunRecord, kept: bool, error: str, exit_status: int) -> None:
    """Records that a verb did not do its work. What verification or the switch has made of the run by then stands;
    otherwise it is ``failed``, or with ``kept`` what it was before the verb began, unless a batch was to be loaded again."""
    kept = kept and all(b.status == "done" for b in checkpoints.batches(connection, before.run_id, "load"))
    state = before.state if kept else "failed"
    connection.execute(
        "UPDATE vecferry.run SET error = %(error)s, doing = NULL, waiting_until = NULL, updated_at = now(), "
        "exit_status = CASE WHEN state <> 'running' THEN exit_status ELSE %(exit)s END, "
        "report = CASE WHEN state <> 'running' THEN report WHEN %(kept)s THEN %(report)s ELSE report END, "
        "state = CASE WHEN state <> 'running' THEN state ELSE %(state)s END WHERE run_id = %(run_id)s",
        {
            "error": error and expressible(connection, error),
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
        (text := error and expressible(connection, error), run_id, text),
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
