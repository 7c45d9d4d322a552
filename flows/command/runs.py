"""The runs there are: found in the ledgers, and shown without Prefect."""

from collections.abc import Iterable
from contextlib import ExitStack

from flows.command.arguments import database_of, pairs
from flows.command.show import terminal
from flows.command.show.run import show_run, show_runs
from flows.forms.form import parse
from flows.forms.registry import FLOWS
from flows.forms.shared import Base, Migration
from tasks.base.errors import UsageError
from tasks.runs import checkpoints, ledger, ledger_versions, ledgers, manifest, purchases, status
from tasks.runs.database import Connection, connect, database_url
from tasks.runs.outcome import Outcome
from tasks.runs.purchases import Purchases


def show(run_id: str | None, p: list[str] | None, as_json: bool) -> None:
    """One run, or all of them. Raises UsageError for one that is not there."""
    database = parse(Base, pairs(p)).database if p else None
    if run_id is None:
        show_runs(*_known(database), as_json)
        return
    with connect(database_url(database or ledgers.having(run_id)), "vecferry status") as connection:
        note_versions(connection)
        outcome = status.outcome(connection, run_id)
        show_run(outcome, status.stages(connection, run_id), status.failures(connection, run_id), as_json)


def _known(database: str | None) -> tuple[list[Outcome], list[Purchases]]:
    """The runs of that database's ledger, or of both where none is named, the latest first, and what was bought outside of them.
    What cannot be read is noted."""
    outcomes, bought, unread = list[Outcome](), list[Purchases](), dict[str, str]()
    with ExitStack() as stack:
        if database:
            connections: Iterable[Connection] = [
                stack.enter_context(connect(database_url(database), "vecferry status"))
            ]
        else:
            connections = (reading.connection for reading in ledgers.readable(unread))
        for connection in connections:
            note_versions(connection)
            outcomes += [status.outcome(connection, name) for name in ledger.run_ids(connection)]
            bought += purchases.purchases(connection)
    for name, why in unread.items():
        terminal.note(f"the runs of {name} are not shown: {why}")
    return sorted(outcomes, key=lambda outcome: outcome.started, reverse=True), bought


def to_rerun(run_id: str, batches: list[int] | None, p: list[str] | None) -> tuple[str, Migration]:
    """The flow, and the parameters that run the failed batches of a run again, or those named. Raises UsageError where there is
    nothing to be run again."""
    database = database_of(p) or ledgers.having(run_id)
    with connect(database_url(database), "vecferry rerun") as connection:
        record, known = ledger.get(connection, run_id), checkpoints.batches(connection, run_id)
    failed = sorted({b.number for b in known if b.status == "failed" and b.stage in ("snapshot", "load")})
    step = status.next_step(record, known)
    if manifest.is_asked_for(known):
        raise UsageError(
            f"run {run_id} is only a snapshot so far, and rerun would go on to the end. Finish the snapshot: {step.now}"
        )
    if not batches and not failed:
        then = f". Go on with: {step.now}" if step.now else ""
        raise UsageError(f"run {run_id} has no failed batches; it is {record.state.replace('_', ' ')}{then}")
    flow = record.plan.request.flow
    values = {**pairs(p), "run_id": run_id, "batch_ids": list(batches or failed)}
    if database != FLOWS[flow].model_fields["database"].default:
        values["database"] = database
    return flow, parse(FLOWS[flow], values)


def check_run(run_id: str, database: str) -> None:
    """Raises UsageError for an unknown run, before Prefect is started."""
    with connect(database_url(database), "vecferry status") as connection:
        ledger.get(connection, run_id)


def note_versions(connection: Connection) -> None:
    """Says what is to be done with an older ledger, which is read as it is."""
    if line := ledger_versions.notice(connection):
        terminal.note(line)
