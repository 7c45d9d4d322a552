"""Cutover: every target's shadow becomes what people use; rollback takes it back; contract ends the choice.

The targets of one store are switched in one transaction, or one atomic call, together with the ledger where that lies there.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from prefect import task

from tasks.base.errors import UsageError, VerificationRefused
from tasks.base.retrying import RETRYING
from tasks.base.words import counted
from tasks.runs import checkpoints, ledger, run_log
from tasks.runs.checkpoints import Mark
from tasks.runs.commands import command, resumption
from tasks.runs.ledger import State
from tasks.runs.run import Run, open_run
from tasks.shadows.interface import Unit
from tasks.shadows.registry import units_of


def cutover(run: Run) -> list[str]:
    """Switches every target; returns what is to be known of it.

    Raises VerificationRefused when the run is not verified, something depends on what would step aside, or rows wait in a queue
    that a pass of catching up does not take off it.
    """
    with run.refusable(f"cutover of {run.run_id}, which has switched nothing"):
        state = _record(run).state
        if run.plan.limited:
            raise VerificationRefused(
                f"run {run.run_id} is a smoke run, and smoke runs never cut over: start a run without a limit"
            )
        if state == "cut_over":
            return []
        if state != "verified":
            raise VerificationRefused(
                f"run {run.run_id} is {state.replace('_', ' ')}, not verified: finish it first, {resumption(run.plan)}"
            )
        units = units_of(run)
        if depending := [line for unit in units for line in unit.dependents()]:
            raise VerificationRefused(
                "cutover refused, because these would keep the old vectors: " + "; ".join(depending)
            )
        if left := [line for unit in units for line in unit.stuck()]:
            raise VerificationRefused(
                "cutover refused, because what was noted as changed does not arrive by catching up: "
                f"{'; '.join(left)}. {command('status', run.run_id, run.plan.request.database)} shows the queue; "
                f"{command('cutover', run.run_id, run.plan.request.database)} tries once more"
            )
        lines = _through(run, units, _switch, _becomes(run, "cut_over"))
        return [*_thresholds(run), *lines]


def rollback(run: Run, force: bool = False) -> list[str]:
    """Takes the run back, whatever it has done so far; returns what was done, a line each.

    After a cutover what people used before is used again, and what the run made is kept, fit for another cutover. Before one,
    it is dropped. A sync's changes are undone row by row, save where somebody else has changed the row since. Raises
    UsageError when the run was contracted, and VerificationRefused, without ``force``, where it would overwrite what somebody
    has made since the cutover.
    """
    with run.refusable(f"rollback of {run.run_id}, which has changed nothing"):
        state = _record(run).state
        if state == "rolled_back":
            for unit in units_of(run):
                unit.settle()
            return [f"run {run.run_id} was rolled back before, so there was nothing to do"]
        if state == "contracted":
            raise UsageError(f"run {run.run_id} is contracted and cannot be rolled back: what that needs was dropped")
        units = units_of(run)
        # A kill may have come between a store and the ledger: people use what the ledger does not know to be switched.
        switched = state == "cut_over" or any(unit.active() for unit in units)
        forced = f"{command('rollback', run.run_id, run.plan.request.database)} --force"
        if switched and not force and (replaced := [line for unit in units for line in unit.replaced()]):
            raise VerificationRefused(f"{'; '.join(replaced)}. A rollback would overwrite that: {forced}")
        mark = _becomes(run, "rolled_back", () if switched else ("load", "index", "catch_up", "verify"))
        try:
            return _through(run, units, lambda unit, end: unit.take_back(switched, end, force), mark)
        except VerificationRefused as refused:
            raise VerificationRefused(f"{refused}. To go back all the same: {forced}") from refused


def contract(run: Run, rollback_days: float | None, now: datetime | None = None) -> list[str]:
    """Drops what a rollback would need, once the rollback window is over; of a run that was rolled back, what another
    cutover would need, at once. Returns what was dropped.

    ``rollback_days`` None stands for those of the plan. Raises VerificationRefused before that, and UsageError when the
    run was neither cut over nor rolled back. ``now`` is the server's clock.
    """
    with run.refusable(f"contract of {run.run_id}, which has dropped nothing"):
        record, units, mark = _record(run), units_of(run), _becomes(run, "contracted")
        if record.state == "contracted":
            return [f"run {run.run_id} was contracted before, so there was nothing to do"]
        if record.state == "rolled_back":
            return _through(run, units, lambda unit, end: unit.take_back(False, end), mark)
        if record.state != "cut_over":
            raise UsageError(
                f"run {run.run_id} is {record.state}: only a run that was cut over or rolled back can be contracted"
            )
        days = run.plan.request.rollback_days if rollback_days is None else rollback_days
        assert record.cut_over_at
        opens = record.cut_over_at + timedelta(days=days)
        if (now or _clock(run)) < opens:
            over = opens + timedelta(minutes=1, microseconds=-1)  # rounded up, as `status` does
            raise VerificationRefused(
                f"the rollback window of {counted(days, 'day')} ends at {over:%Y-%m-%d %H:%M %Z}, and until then "
                "nothing is dropped: run this command again after that"
            )
        dropped = _through(run, units, lambda unit, end: unit.contract(end), mark)
        return dropped or ["nothing was kept for a rollback, so nothing was dropped"]


def _switch(unit: Unit, mark: Mark) -> list[str]:
    if unit.active():  # a kill came between the store and the ledger
        mark.alone()
        return []
    return unit.switch(mark)


def _thresholds(run: Run) -> list[str]:
    """What verification has translated thresholds of similarity into: the old ones do not go with new vectors."""
    with run.connection() as connection:
        verified = {t.name: checkpoints.verified(connection, run.run_id, t.number) for t in run.plan.targets}
    return [
        f"{name}: the similarity threshold {one.threshold.old:g} of the old vectors is {one.threshold} of the new ones"
        for name, one in verified.items()
        if one.threshold
    ]


def _through(run: Run, units: list[Unit], change: Callable[[Unit, Mark], list[str]], mark: Mark) -> list[str]:
    """Changes one unit after the other; the mark comes with the last."""
    nothing = Mark(run.connection, lambda _: None)
    return [line for unit in units for line in change(unit, mark if unit is units[-1] else nothing)]


def _becomes(run: Run, state: State, forgotten: tuple[str, ...] = ()) -> Mark:
    """The mark of a run that comes to another state, whose batches of some stages are to be made once more."""
    return Mark(run.connection, lambda connection: ledger.become(connection, run.run_id, state, forgotten))


def _record(run: Run) -> ledger.RunRecord:
    with run.connection() as connection:
        return ledger.get(connection, run.run_id)


def _clock(run: Run) -> datetime:
    with run.connection() as connection:
        return ledger.clock(connection)


@task(name="cutover", task_run_name="cut over {run_id}", **RETRYING)
def cutover_task(run_id: str, database: str) -> list[str]:
    with run_log.stage(run_id, "cutover"):
        return cutover(open_run(run_id, database))


@task(name="rollback", task_run_name="roll back {run_id}", **RETRYING)
def rollback_task(run_id: str, database: str, force: bool) -> list[str]:
    with run_log.stage(run_id, "rollback"):
        return rollback(open_run(run_id, database), force)


@task(name="contract", task_run_name="contract {run_id}", **RETRYING)
def contract_task(run_id: str, database: str, rollback_days: float | None) -> list[str]:
    with run_log.stage(run_id, "contract"):
        return contract(open_run(run_id, database), rollback_days)
