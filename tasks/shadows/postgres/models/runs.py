"""Runs between models of tables: which of them need a model that is to go, and the end of what they follow."""

from collections.abc import Iterator

from tasks.base.errors import UsageError
from tasks.runs import checkpoints, ledger, status
from tasks.runs.commands import command
from tasks.runs.ledger import RunRecord
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.live import place as live_place
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables

UNFINISHED = ("planned", "running", "failed", "verified")


def refuse_moving(connection: Connection, tables: ModelTables, model: RegisteredModel | None, instead: str) -> None:
    """Raises UsageError while a run that is not finished moves documents to or from the model, or any model for None; ``instead``
    says what the user may do all the same."""
    for record, numbers in _runs(connection, tables):
        if record.state in UNFINISHED and (model is None or model.number in numbers):
            raise UsageError(f"{_moves(record)}: {_way_on(connection, record)}{instead}")


def refuse_way_back(connection: Connection, tables: ModelTables, model: RegisteredModel | None, instead: str) -> None:
    """Raises UsageError while a rollback of a run needs the vectors of the model, or of any model for None."""
    for record, (_, *before) in _runs(connection, tables):
        if record.state == "cut_over" and (model is None or model.number in before):
            contracted = command("contract", record.run_id, record.plan.request.database)
            raise UsageError(
                f"run {record.run_id} can still be rolled back, to vectors that would be dropped: end that first, `{contracted} "
                f"-p rollback_days=0`{instead}"
            )


def refuse_at_work(connection: Connection, tables: ModelTables, instead: str) -> None:
    """Raises UsageError while a process works on a run between models of the tables."""
    for record, _ in _runs(connection, tables):
        if record.at_work:
            raise UsageError(f"{_moves(record)}, and is at work: wait until it has ended{instead}")


def unfollow(connection: Connection, tables: ModelTables, model: RegisteredModel | None) -> None:
    """Ends what runs follow documents by, for the model, or for every model; in the caller's transaction, after which no run
    writes vectors of it any more."""
    for record, (to, *_) in _runs(connection, tables):
        if model is None or model.number == to:
            for target in record.plan.targets:
                live_place.drop_known(connection, target)


def _runs(connection: Connection, tables: ModelTables) -> Iterator[tuple[RunRecord, tuple[int, ...]]]:
    """Those of the tables, and the numbers of their models: the new one, the one before it, and the one that it took over from."""
    rows = connection.execute(
        "SELECT r.run_id, m.took_over_from FROM vecferry.run r "
        "LEFT JOIN vecferry.model m ON m.model = (r.plan #>> '{targets,0,place,model}')::bigint "
        "WHERE r.plan #>> '{targets,0,place,set_id}' = %s ORDER BY r.created_at",
        (str(tables.set_id),),
    ).fetchall()
    for run_id, took_over_from in rows:
        record = ledger.get(connection, run_id)
        place = record.plan.targets[0].place
        yield record, (place.model, place.source, took_over_from or 0)


def _moves(record: RunRecord) -> str:
    request = record.plan.request
    return f"run {record.run_id} moves documents from {request.old_embedder or 'other vectors'} to {request.embedder}"


def _way_on(connection: Connection, record: RunRecord) -> str:
    step = status.next_step(record, checkpoints.batches(connection, record.run_id))
    back = command("rollback", record.run_id, record.plan.request.database)
    if record.at_work:
        return f"it is at work, and `{step.later}` shows how far it is; `{back}` takes it back once it has stopped"
    return f"go on with it, `{step.now}`, or take it back, `{back}`"
