"""The column that tables came with gets the name that its dimensions give, and back: a switch, for INSERTs name it."""

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import some
from tasks.runs import coverage, model_sets, registry
from tasks.shadows.postgres.model_changes import change, registry_changed, send
from tasks.shadows.postgres.model_readers import named_in_functions
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables
from tasks.stores.postgres.transactions import wait_for_transactions

WAIT = 5.0
"""Seconds for searches that have begun to end. Nobody waits meanwhile."""


def rename(connection: Connection, tables: ModelTables, by_dimensions: bool, force: bool = False) -> list[str]:
    """Calls the column embedding_N, or what it was called before; returns what was done. Raises UsageError where functions of the
    application name it, unless forced, and where the name is taken."""
    before = model_sets.before(connection, tables).get("fixed")
    if before is None:
        raise UsageError(f"{tables.chunks} came without a column of vectors, so there is none to rename")
    for model in registry.listed(connection, tables):
        usual = f"embedding_{model.dimensions}"
        now, then = (before, usual) if by_dimensions else (usual, before)
        if model.column == now != then:
            break
    else:
        return []
    if relations.has_column(connection, model.place, then):
        raise UsageError(f"{model.place_schema}.{model.place_table} has a column {then} already: rename that one first")
    if not force and (readers := named_in_functions(connection, model.place_table, now)):
        raise UsageError(
            f"{some(readers)} would fail, for {now} is named there: have the functions name {then}, or -p force=true and replace them after"
        )
    locked(connection, lambda: registry_changed(connection, tables, following=True))
    wait_for_transactions(connection, WAIT)  # searches by functions that name the column
    locked(connection, lambda: _rename(connection, tables, model, then))
    locked(connection, lambda: registry_changed(connection, tables))
    back = "false" if by_dimensions else "true"
    return [
        f"{model.place_schema}.{model.place_table}.{now} is called {then}; back: vecferry models init -p rename={back}"
    ]


def _rename(connection: Connection, tables: ModelTables, model: registry.RegisteredModel, then: str) -> None:
    where = {"schema": model.place_schema, "table": model.place_table}
    renamed = statement("cutover_column", **where, column=model.column, renamed=then)
    send(connection, [change(then, renamed)])
    model_sets.rename_column(connection, tables, model.column, then)
    coverage.note_counts(connection, tables)
    registry_changed(connection, tables, following=True)
