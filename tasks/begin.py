"""Begin: freeze the plan of a new run or take up the one there is, and make the ledger's place in the database."""

from dataclasses import replace

from prefect import task

from tasks.base import settings
from tasks.base.errors import UsageError, VerificationRefused
from tasks.base.retrying import RETRYING
from tasks.planning import registry as planning
from tasks.planning.planned import refuse_problems
from tasks.runs import checkpoints, holding, home, ledger, ledger_versions, ledgers, run_log, spending, status
from tasks.runs.commands import command
from tasks.runs.database import Connection, connect, database_url, refusable
from tasks.runs.names import check_run_id
from tasks.runs.plan import Plan, Request
from tasks.runs.run import Run, chosen
from tasks.shadows.registry import units_of


def begin(
    request: Request,
    run_id: str,
    given: set[str],
    batch_ids: list[int] | None = None,
    flow_run: str | None = None,
    asks_model: bool = True,
    missing: str | None = None,
) -> ledger.State:
    """Returns the run's state before this start; a new one keeps which ``flow_run`` began it. ``asks_model`` makes sure that
    its model can be asked, and ``missing`` tells what a new run needs and was not given. Raises UsageError, before anything
    of the run is written, when the plan cannot run, differs from the frozen one in one of the parameters that were ``given``,
    or has no such batches."""
    url = database_url(request.database)
    connection = connect(url, holding.application(run_id))
    try:
        with refusable("begin"):
            check_run_id(run_id)
            ledger_versions.bring_forward(connection)  # a plan is made by what the ledger knows of earlier runs
            record = ledger.find(connection, run_id)
            if record is None:
                ledgers.refuse_taken(connection, request.database, run_id)
                plan = _new_plan(connection, request, run_id, batch_ids, missing)
                ledger_versions.ensure(connection)
                planning.prepare(connection, request)
                plan = replace(plan, flow_run=flow_run, home=home.named(settings.home()))
                ledger.start(connection, plan, given)
            else:
                plan = _frozen_plan(connection, record, request, given, batch_ids)
        if asks_model and (record is None or record.state not in ("cut_over", "contracted")):
            spending.begin(Run(plan, url, settings.home()))
        return record.state if record else "planned"
    finally:
        connection.close()


def preflight(
    request: Request,
    run_id: str,
    given: set[str],
    batch_ids: list[int] | None = None,
    missing: str | None = None,
) -> None:
    """Raises what ``begin`` would raise, and writes nothing: a mistake is told before anything is started for it. What takes
    a pass over a table is left to ``begin``."""
    with connect(database_url(request.database), "vecferry preflight") as connection:
        if record := ledger.find(connection, check_run_id(run_id)):
            _frozen_plan(connection, record, request, given, batch_ids)
        else:
            _refuse_unbegun(run_id, batch_ids, missing)
            ledgers.refuse_taken(connection, request.database, run_id)
            refuse_problems(planning.draft(connection, request, run_id))


def reopen_named(run: Run, batch_ids: list[int] | None) -> None:
    """Makes the named batches' loads pending again, so that naming a finished batch loads it anew; a snapshot's part
    is immutable and stays."""
    if batch_ids:
        with run.connection() as connection:
            checkpoints.reopen(connection, run.run_id, "load", batch_ids)


def ready_to_cut_over(run: Run, record: ledger.RunRecord) -> None:
    """Raises VerificationRefused when the run was never built to the end, or is a smoke run, UsageError when nothing is left
    of it, or people do not use what its ledger says, and FatalError when its model cannot be asked, without which nothing is
    verified."""
    refuse_dropped(record)
    if record.state == "cut_over" and any(unit.active() is False for unit in units_of(run)):
        raise UsageError(
            f"people do not use what run {run.run_id} has made, although its ledger says so: a rollback was interrupted, or "
            f"somebody has switched since. Go on with {command('rollback', run.run_id, run.plan.request.database)}"
        )
    if record.switched:
        return
    with run.connection() as connection:
        batches = checkpoints.batches(connection, run.run_id)
    built = {b.number for b in batches if b.stage == "index" and b.status == "done"}
    if run.plan.limited:
        raise VerificationRefused(
            f"run {run.run_id} is a smoke run, and smoke runs never cut over: start a run without a limit"
        )
    if missing := [t.name for t in run.plan.targets if t.place.loads and t.number not in built]:
        step = status.next_step(replace(record, at_work=False), batches)
        raise VerificationRefused(
            f"run {run.run_id} is {record.state.replace('_', ' ')}, and {', '.join(missing)} is not built "
            f"yet: {step.now}"
        )
    spending.begin(run)


def ready_to_catch_up(run: Run, record: ledger.RunRecord) -> None:
    """Raises UsageError for a run that has nothing to be brought in line, or whose table a sync brings in line."""
    refuse_dropped(record)
    run_id, flow = run.run_id, run.plan.request.flow
    if record.state != "verified" and not record.switched:
        with run.connection() as connection:
            step = status.next_step(replace(record, at_work=False), checkpoints.batches(connection, run_id))
        raise UsageError(f"run {run_id} is {record.state.replace('_', ' ')}: go on with it first, {step.now}")
    if record.switched and not run.plan.followed:
        raise UsageError(
            f"run {run_id} is cut over: start a new run of {flow} to sync its tables, which can be rolled back"
        )
    if record.state == "contracted" and not all(t.place.followed_after_contract for t in run.plan.targets):
        raise UsageError(
            f"run {run_id} is contracted: changes are no longer tracked, and the application makes the vectors"
        )


def refuse_dropped(record: ledger.RunRecord) -> None:
    """Raises UsageError for a run of which nothing is left."""
    if record.dropped:
        raise UsageError(
            f"run {record.run_id} was rolled back, and contract dropped what it had built: start a new run, "
            f"vecferry run {record.plan.request.flow}"
        )


def _frozen_plan(
    connection: Connection,
    record: ledger.RunRecord,
    request: Request,
    given: set[str],
    batch_ids: list[int] | None,
) -> Plan:
    run_id = record.run_id
    ledger.check_same(record.plan, request, given)
    home.check(record.plan, settings.home())
    refuse_dropped(record)
    if batch_ids and record.state in ("cut_over", "contracted"):
        rollback = command("rollback", run_id, record.plan.request.database)
        way = f"; roll it back first: {rollback}" if record.state == "cut_over" else ""
        raise UsageError(
            f"run {run_id} is {record.state.replace('_', ' ')}, so its batches cannot be loaded again{way}"
        )
    chosen(connection, run_id, batch_ids)
    return record.plan


def _new_plan(
    connection: Connection, request: Request, run_id: str, batch_ids: list[int] | None, missing: str | None
) -> Plan:
    _refuse_unbegun(run_id, batch_ids, missing)
    return refuse_problems(planning.examined(connection, request, run_id))


def _refuse_unbegun(run_id: str, batch_ids: list[int] | None, missing: str | None) -> None:
    """Raises UsageError for what only a run that has begun can do, or know."""
    if batch_ids:
        raise UsageError(f"run {run_id} has no batch {batch_ids[0]}, because it has not begun: leave batch_ids out")
    if missing:
        raise UsageError(f"there is no run {run_id!r} to resume, and {missing}")


@task(name="begin", task_run_name="plan {run_id}", **RETRYING)
def begin_task(
    request: Request,
    run_id: str,
    given: list[str],
    batch_ids: list[int] | None,
    flow_run: str | None,
    asks_model: bool = True,
    missing: str | None = None,
) -> ledger.State:
    state = begin(request, run_id, set(given), batch_ids, flow_run, asks_model, missing)
    run_log.note(run_id, "begin")
    return state
