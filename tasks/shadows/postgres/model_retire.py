"""The end of a model: it is searched no more, and after a window its vectors go."""

from datetime import UTC, datetime, timedelta

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import counted, typed
from tasks.runs import coverage, model_sets, registry
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres import model_pieces
from tasks.shadows.postgres.model_changes import Change, change, registry_changed, send
from tasks.shadows.postgres.superseded import drop_superseded
from tasks.stores.postgres import pace, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables

PAGE = 1_000
"""Rows that one statement deletes."""


def retire(connection: Connection, tables: ModelTables, name: str, rollback_days: float = 7) -> list[str]:
    """Ends searching by a model; once more, after so many days, drops its vectors. Returns what was done. Raises UsageError for the
    active model, and before the days are over."""
    model = registry.named(connection, tables, name)
    if not model.ended:
        locked(connection, lambda: _end(connection, tables, model))
        drop_superseded(connection, str(tables.chunks))
        return [
            f"{model.name} is searched no more; `vecferry models activate {typed(model.name)}` brings it back",
            f"its vectors go with the next `vecferry models retire {typed(model.name)}` after {counted(rollback_days, 'day')}",
        ]
    over = model_sets.ended_at(connection, model) + timedelta(days=rollback_days)
    if over > datetime.now(UTC):
        raise UsageError(
            f"{model.name} can be brought back until {over:%Y-%m-%d %H:%M} UTC, so its vectors stay; to drop them now: "
            f"vecferry models retire {typed(model.name)} -p rollback_days=0"
        )
    return drop(connection, tables, model)


def drop(connection: Connection, tables: ModelTables, model: RegisteredModel) -> list[str]:
    """Drops the vectors of a model that has ended, and its column where no other has it. It can be called again, and goes on where
    it was cut off."""
    rows = 0 if coverage.lies_with_chunks(tables, model) else _delete(connection, tables, model)
    changes = list(_changes(connection, tables, model))
    locked(connection, lambda: _forget(connection, tables, model, changes))
    drop_superseded(connection, str(tables.chunks))
    return [f"{counted(rows, 'vector')} of {model.name} dropped", *(one.makes for one in changes)]


def _end(connection: Connection, tables: ModelTables, model: RegisteredModel) -> None:
    registry.end(connection, tables, model)
    registry_changed(connection, tables)


def _delete(connection: Connection, tables: ModelTables, model: RegisteredModel) -> int:
    """Its rows, page by page, while others use the table."""
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
        with pace.turn(connection):
            gone = connection.execute(page).rowcount
        total += gone
        if gone == 0:
            return total


def _changes(connection: Connection, tables: ModelTables, model: RegisteredModel) -> list[Change]:
    """What goes with the last model of a column: the column, its index, and what its rows were called by default."""
    others = [m for m in registry.listed(connection, tables) if m.number != model.number]
    alike = [m for m in others if (m.place_table, m.column) == (model.place_table, model.column)]
    if alike:
        return []
    where = {"schema": model.place_schema, "table": model.place_table}
    dropped = statement("contract_column", **where, column=model.column)
    changes = [change(f"column {model.place_schema}.{model.place_table}.{model.column} dropped", dropped)]
    if coverage.lies_with_chunks(tables, model):
        changes.insert(0, model_pieces.count_chunks(tables, others))
    else:
        changes.insert(0, model_pieces.count_embeddings(tables, others))
        vectors = tables.embeddings
        if relations.default(connection, vectors.identifier, vectors.model) == model.id:
            undone = statement("contract_model_default", **where, model=vectors.model)
            changes.append(change(f"column {vectors}.{vectors.model} without a default", undone))
    return changes


def _forget(connection: Connection, tables: ModelTables, model: RegisteredModel, changes: list[Change]) -> None:
    """In one transaction: what counts and searches it knows of it no more, then its column goes."""
    model_sets.forget(connection, model)
    coverage.note_counts(connection, tables)
    registry_changed(connection, tables)
    send(connection, changes)
