"""The column that tables came with gets the name that its dimensions give, and back: a switch, for INSERTs name it."""

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import some
from tasks.runs import coverage, model_sets, models, registry
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.models.changes import change, registry_changed, send
from tasks.shadows.postgres.models.readers import named_in_functions
from tasks.shadows.postgres.models.runs import refuse_at_work
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables
from tasks.stores.postgres.transactions import wait_for_transactions

WAIT = 5.0
"""Seconds for searches that have begun to end. Nobody waits meanwhile."""


def rename(connection: Connection, tables: ModelTables, by_dimensions: bool, force: bool = False) -> list[str]:
    """Calls the column embedding_N, or what it was called before; returns what was done. Raises UsageError where functions of the
    application name it, or a run is at work on its vectors, unless forced, and where the name is taken."""
    model = fixed(connection, tables)
    if model is None:
        raise UsageError(f"{tables.chunks} has no column of vectors that it came with, so there is none to rename")
    now = model.column
    then = f"embedding_{model.dimensions}" if by_dimensions else model_sets.before(connection, tables)["fixed"]
    if now == then:  # what a rename that was killed has left is put right
        locked(connection, lambda: registry_changed(connection, tables))
        return []
    if relations.has_column(connection, model.place, then):
        raise UsageError(f"{model.place_schema}.{model.place_table} has a column {then} already: rename that one first")
    if not force and (readers := named_in_functions(connection, model.place_table, now)):
        raise UsageError(
            f"{some(readers)} would fail, for {now} is named there: have the functions name {then}, or -p force=true and replace them after"
        )
    if not force:
        refuse_at_work(connection, tables, "; -p force=true renames it all the same")
    locked(connection, lambda: registry_changed(connection, tables, following=True))
    wait_for_transactions(connection, WAIT)  # searches by functions that name the column
    locked(connection, lambda: _rename(connection, tables, model, then, by_dimensions))
    locked(connection, lambda: registry_changed(connection, tables))
    back = "false" if by_dimensions else "true"
    return [
        f"{model.place_schema}.{model.place_table}.{now} is called {then}; back: vecferry models init -p rename={back}"
    ]


def fixed(connection: Connection, tables: ModelTables) -> RegisteredModel | None:
    """One of the models that have the column which the tables came with, while that is there."""
    before = model_sets.before(connection, tables)
    now = before.get("renamed") or before["fixed"]
    known = [m for m in registry.listed(connection, tables) if m.column == now]
    # Where it stands with the chunks, a column of the table of vectors may have the same name.
    return min(known, key=lambda m: not coverage.lies_with_chunks(tables, m), default=None)


def _rename(
    connection: Connection, tables: ModelTables, model: RegisteredModel, then: str, by_dimensions: bool
) -> None:
    models.hold(connection)
    if (is_now := fixed(connection, tables)) is None or is_now.column != model.column:
        raise UsageError(f"the columns of {tables.chunks} were changed meanwhile: run this command again")
    where = {"schema": model.place_schema, "table": model.place_table}
    renamed = statement("cutover_column", **where, column=model.column, renamed=then)
    send(connection, [change(then, renamed)])
    model_sets.rename_column(connection, tables, model, then)
    model_sets.note_before(connection, tables, renamed=then if by_dimensions else None)
    coverage.note_counts(connection, tables)
    registry_changed(connection, tables, following=True)
