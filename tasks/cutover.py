"""Cutover: every target's shadow becomes what people use, in one transaction; rollback takes it back; contract ends the choice."""

from collections.abc import Callable
from datetime import datetime, timedelta

from prefect import task

from tasks.base.errors import UsageError, VerificationRefused
from tasks.base.retrying import RETRYING
from tasks.base.words import counted
from tasks.runs import ledger, run_log
from tasks.runs.commands import resumption
from tasks.runs.run import Run, open_run
from tasks.shadows.interface import Shadow
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection, refusable
from tasks.stores.postgres.locking import locked


def cutover(run: Run) -> None:
    """Switches every target, all in one transaction.

    Raises VerificationRefused when the run is not verified or something depends on a table that would step aside.
    """
    with run.connection() as connection, refusable(f"cutover of {run.run_id}, which has switched nothing"):
        record = ledger.get(connection, run.run_id)
        if run.plan.limited:
            raise VerificationRefused(f"run {run.run_id} is a smoke run, which never cuts over")
        if record.state == "cut_over":
            return
        if record.state != "verified":
            raise VerificationRefused(
                f"run {run.run_id} is {record.state}, not verified: first: {resumption(run.plan)}"
            )
        shadows = [shadow_of(run, t) for t in run.plan.targets]
        if depending := [line for s in shadows for line in s.dependents(connection)]:
            raise VerificationRefused(
                "cutover refused, because these would stay on the old table: " + "; ".join(depending)
            )

        def switch() -> None:
            for shadow in shadows:
                shadow.switch(connection)
            ledger.set_state(connection, run.run_id, "cut_over")

        locked(connection, switch)


def rollback(run: Run) -> list[str]:
    """Takes the run back, whatever it has done so far; returns what was done, a line each.

    After a cutover the earlier tables get their names again and the new ones are kept as shadows, fit for another
    cutover. Before one, the shadows are dropped. A sync's changes are undone row by row, save where somebody else has
    changed the row since. Raises UsageError when the run was contracted.
    """
    with run.connection() as connection, refusable(f"rollback of {run.run_id}, which has changed nothing"):
        state = ledger.get(connection, run.run_id).state
        if state == "rolled_back":
            return [f"run {run.run_id} was taken back before; nothing was left to do"]
        if state == "contracted":
            raise UsageError(f"run {run.run_id} is contracted: what a rollback needs was dropped")

        def back() -> list[str]:
            lines = [shadow_of(run, t).take_back(connection, state == "cut_over") for t in run.plan.targets]
            if state != "cut_over":
                for stage in ("load", "index", "catch_up", "verify"):
                    connection.execute(
                        "DELETE FROM vecferry.batch WHERE run_id = %s AND stage = %s", (run.run_id, stage)
                    )
            ledger.set_state(connection, run.run_id, "rolled_back")
            return lines

        return locked(connection, back)


def contract(run: Run, rollback_days: float | None, now: datetime | None = None) -> list[str]:
    """Drops what a rollback would need, once the rollback window is over; of a run that was rolled back, what another
    cutover would need, at once. Returns what was dropped.

    ``rollback_days`` None stands for those of the plan. Raises VerificationRefused before that, and UsageError when the
    run was neither cut over nor rolled back. ``now`` is the server's clock.
    """
    with run.connection() as connection, refusable(f"contract of {run.run_id}, which has dropped nothing"):
        record = ledger.get(connection, run.run_id)
        if record.state == "contracted":
            return [f"run {run.run_id} was contracted before; nothing was left to do"]
        if record.state == "rolled_back":
            return locked(connection, lambda: _end(run, connection, lambda s: [s.take_back(connection, False)]))
        if record.state != "cut_over":
            raise UsageError(f"run {run.run_id} is {record.state}: only a run that was cut over can be contracted")
        row = connection.execute("SELECT now()").fetchone()
        assert row
        days = run.plan.request.rollback_days if rollback_days is None else rollback_days
        assert record.cut_over_at
        opens = record.cut_over_at + timedelta(days=days)
        if (now or row[0]) < opens:
            raise VerificationRefused(
                f"the rollback window of {counted(days, 'day')} ends {opens:%Y-%m-%d %H:%M %Z}; until then the old tables stay"
            )

        return locked(connection, lambda: _end(run, connection, lambda s: s.contract(connection)))


def _end(run: Run, connection: Connection, drop: Callable[[Shadow], list[str]]) -> list[str]:
    lines = [line for t in run.plan.targets for line in drop(shadow_of(run, t))]
    ledger.set_state(connection, run.run_id, "contracted")
    return lines or ["nothing was kept for a rollback, so nothing was dropped"]


@task(name="cutover", task_run_name="cut over {run_id}", **RETRYING)
def cutover_task(run_id: str, database: str) -> None:
    with run_log.stage(run_id, "cutover"):
        cutover(open_run(run_id, database))


@task(name="rollback", task_run_name="roll back {run_id}", **RETRYING)
def rollback_task(run_id: str, database: str) -> list[str]:
    with run_log.stage(run_id, "rollback"):
        return rollback(open_run(run_id, database))


@task(name="contract", task_run_name="contract {run_id}", **RETRYING)
def contract_task(run_id: str, database: str, rollback_days: float | None) -> list[str]:
    with run_log.stage(run_id, "contract"):
        return contract(open_run(run_id, database), rollback_days)
