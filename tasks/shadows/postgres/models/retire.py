"""The end of a model: it is no longer searched, and after a window its vectors go."""

from collections.abc import Iterator
from datetime import timedelta

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import counted, typed
from tasks.runs import coverage, ledger, model_sets, models, registry
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.models import pieces, runs
from tasks.shadows.postgres.models.changes import Change, change, registry_changed, send
from tasks.shadows.postgres.models.indexes import own_index
from tasks.shadows.postgres.models.rename import fixed
from tasks.shadows.postgres.superseded import drop_superseded
from tasks.stores.postgres import pace, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables

PAGE = 1_000
"""Rows that one statement deletes."""
DAYS = 7
"""Until its vectors go, unless something else is said."""
ALL_THE_SAME = "; --force retires it all the same"


def retire(
    connection: Connection, tables: ModelTables, name: str, rollback_days: float = DAYS, force: bool = False
) -> list[str]:
    """Ends searching by a model; once more, after so many days, drops its vectors. Returns what was done. Raises UsageError for the
    active model, before the days are over, and, unless forced, while a run needs it."""
    model = registry.named(connection, tables, name)
    repeated = f"vecferry models retire {typed(model.name)}"
    if not model.ended:
        locked(connection, lambda: _end(connection, tables, model, force))
        drop_superseded(connection, str(tables.chunks))
        days = "" if rollback_days == DAYS else f" -p rollback_days={rollback_days:g}"
        return [
            f"{model.name} is no longer searched; `vecferry models setup {typed(model.name)}` brings it back",
            f"its vectors go with the next `{repeated}{days}` after {counted(rollback_days, 'day')}",
        ]
    now, ended = ledger.clock(connection), model_sets.ended_at(connection, model)
    if (now - ended) / timedelta(days=1) < rollback_days:
        over = ended + timedelta(days=rollback_days, minutes=1, microseconds=-1)  # rounded up
        raise UsageError(
            f"{model.name} can be brought back until {over:%Y-%m-%d %H:%M %Z}, so its vectors stay; to drop them now: "
            f"{repeated} -p rollback_days=0"
        )
    return drop(connection, tables, model, force)


def drop(connection: Connection, tables: ModelTables, model: RegisteredModel, force: bool = False) -> list[str]:
    """Drops the vectors of a model that has ended, and its column where no other has it. It can be called again, and goes on where
    it was cut off. What would refuse the end of it does so before a vector is lost."""
    locked(connection, lambda: _forget(connection, tables, model, force), keep=False)
    rows = 0 if coverage.lies_with_chunks(tables, model) else _delete(connection, tables, model)
    late, done = locked(connection, lambda: _forget(connection, tables, model, force, last=True))
    drop_superseded(connection, str(tables.chunks))
    return [f"{counted(rows + late, 'vector')} of {model.name} dropped", *done]


def _end(connection: Connection, tables: ModelTables, model: RegisteredModel, force: bool) -> None:
    registry.end(connection, tables, model)
    if not force:
        runs.refuse_moving(connection, tables, model, ALL_THE_SAME)
    registry_changed(connection, tables)


def _delete(connection: Connection, tables: ModelTables, model: RegisteredModel) -> int:
    """Its rows, page by page, while others use the table; for as long as nobody brings the model back."""
    vectors, total = tables.embeddings, 0
    page = statement(
        "contract_embeddings_page",
        schema=vectors.schema,
        table=vectors.table,
        model=vectors.model,
        id=model.id,
        rows=PAGE,
    )
    while True:
        with pace.turn(connection), connection.transaction():
            model_sets.stays_ended(connection, model)
            gone = connection.execute(page).rowcount
        total += gone
        if gone == 0:
            return total


def _forget(
    connection: Connection, tables: ModelTables, model: RegisteredModel, force: bool, last: bool = False
) -> tuple[int, list[str]]:
    """In one transaction: what follows, counts and searches it knows of it no more, then its column goes; ``last``: with what was
    written since its rows were deleted. Returns how many those are, and what was done."""
    models.hold(connection)
    model_sets.stays_ended(connection, model)
    if not force:
        runs.refuse_moving(connection, tables, model, ALL_THE_SAME)
        runs.refuse_way_back(connection, tables, model, ALL_THE_SAME)
    runs.unfollow(connection, tables, model)
    late = _delete(connection, tables, model) if last and not coverage.lies_with_chunks(tables, model) else 0
    changes = list(_changes(connection, tables, model))
    model_sets.forget(connection, model)
    coverage.note_counts(connection, tables)
    registry_changed(connection, tables)
    return late, send(connection, changes)


def _changes(connection: Connection, tables: ModelTables, model: RegisteredModel) -> Iterator[Change]:
    """What goes with a model: an index of its rows alone, and what rows were called by default; with the last of a column that,
    and what counts its vectors."""
    others = [m for m in registry.listed(connection, tables) if m.number != model.number]
    alike = [m for m in others if (m.place_table, m.column) == (model.place_table, model.column)]
    vectors, beside = tables.embeddings, not coverage.lies_with_chunks(tables, model)
    if not alike:
        where = {"schema": model.place_schema, "table": model.place_table}
        yield pieces.count_embeddings(tables, others) if beside else pieces.count_chunks(tables, others)
        if fixed(connection, tables) == model:
            model_sets.note_before(connection, tables, fixed=None, renamed=None)
        dropped = statement("contract_column", **where, column=model.column)
        yield change(f"column {model.place_schema}.{model.place_table}.{model.column} dropped", dropped)
    elif index := own_index(connection, tables, model):
        yield change(f"index {index} dropped", statement("contract_index", schema=model.place_schema, index=index))
    if beside and relations.default(connection, vectors.identifier, vectors.model) == model.id:
        undone = statement("contract_model_default", schema=vectors.schema, table=vectors.table, model=vectors.model)
        yield change(f"column {vectors}.{vectors.model} without a default", undone)
