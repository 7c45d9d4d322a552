"""The way back from several models: the tables are what they were before ``init``, and no vector of theirs is lost."""

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import counted, typed
from tasks.runs import coverage, model_sets, models, registry, served
from tasks.shadows.postgres.models import pieces, runs
from tasks.shadows.postgres.models.changes import Change, change, registry_gone, send, send_one_by_one
from tasks.shadows.postgres.models.draft import key_name
from tasks.shadows.postgres.models.rename import rename
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.fixed_column import one_row_a_chunk, unique_keys
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import Chunks, Documents, Embeddings, ModelTables
from tasks.stores.postgres.models_table import NAME


def roll_back(connection: Connection, tables: ModelTables) -> list[str]:
    """Takes back what ``init`` and ``setup`` made; returns what was done. Raises UsageError while a model that came later has
    vectors, for these would be lost, and while a run needs the models."""
    before = model_sets.before(connection, tables)
    _refuse_loss(connection, tables, before)
    _refuse_runs(connection, tables)
    done = rename(connection, tables, by_dimensions=False, force=True) if before["fixed"] else []
    before = model_sets.before(connection, tables)
    done += list(send_one_by_one(connection, _first(connection, tables, before)))
    return [*done, *locked(connection, lambda: _undo(connection, tables, before))]


def _refuse_loss(connection: Connection, tables: ModelTables, before: dict[str, Any]) -> None:
    covered = coverage.covered(connection, tables)
    for model in registry.listed(connection, tables):
        vectors = covered[model.number].with_vector
        if vectors and not _came_with(before, model.name):
            raise UsageError(
                f"{counted(vectors, 'vector')} of {model.name} would be lost: drop them first, "
                f"`vecferry models retire {typed(model.bare)}`, and once more with -p rollback_days=0"
            )


def _refuse_runs(connection: Connection, tables: ModelTables) -> None:
    runs.refuse_moving(connection, tables, None, "")
    runs.refuse_way_back(connection, tables, None, "")


def _came_with(before: dict[str, Any], name: str) -> bool:
    return name == before["source"] or name in (before["adopted"] or ())


def _first(connection: Connection, tables: ModelTables, before: dict[str, Any]) -> Iterator[Change]:
    """What must be alone: indexes that came later, and the key of one row a chunk, where that stepped aside."""
    vectors, narrow = tables.embeddings, before["narrow"]
    for index in served.indexes(connection, tables):
        if index.name not in before["indexes"]:
            dropped = statement("contract_index_concurrently", schema=index.schema, index=index.name)
            yield change(f"no index {index.name}", dropped, alone=True)
    if narrow and one_row_a_chunk(unique_keys(connection, vectors.identifier), vectors) is None:
        where = {"schema": vectors.schema, "index": narrow["name"]}
        built = statement("rollback_key_concurrently", **where, table=vectors.table, chunk=vectors.chunk)
        dropped = statement("contract_index_concurrently", **where)
        yield change(f"unique index {narrow['name']} on {vectors} ({vectors.chunk})", dropped, built, alone=True)


def _undo(connection: Connection, tables: ModelTables, before: dict[str, Any]) -> list[str]:
    models.hold(connection)
    _refuse_runs(connection, tables)
    registry_gone(connection, tables)
    done = send(connection, _uncounted(tables))
    _refuse_loss(connection, tables, before)  # by now nobody else writes to the tables
    runs.unfollow(connection, tables, None)
    changes = list(_changes(connection, tables, before))
    model_sets.forget_tables(connection, tables)
    return [*done, *send(connection, changes)]


def _uncounted(tables: ModelTables) -> Iterator[Change]:
    names = pieces.trigger_names(tables.set_id)
    for table in (tables.chunks, tables.embeddings):
        dropped = statement("rollback_coverage", schema=table.schema, table=table.table, **names)
        yield change(f"no counters of {table}", dropped)


def _changes(connection: Connection, tables: ModelTables, before: dict[str, Any]) -> Iterator[Change]:
    vectors = tables.embeddings
    where = {"schema": vectors.schema, "table": vectors.table}
    view = statement("rollback_models_view", schema=tables.schema, view=pieces.VIEW)
    yield change(f"no view {tables.schema}.{pieces.VIEW}", view)
    if before["adopted"] is not None:
        renamed = statement("cutover_models_table", schema=tables.schema, table=f"{NAME}_before", renamed=NAME)
        yield change(f"table {tables.schema}.{NAME} again", renamed)
    yield from _columns(connection, tables, before)
    for name, definition in before["foreign_keys"].items():
        restored = statement("rollback_foreign_key", **where, constraint=name, definition=sql.SQL(definition))
        yield change(f"foreign key {name} of {vectors}", restored)
    yield from _tables(connection, tables, before)


def _columns(connection: Connection, tables: ModelTables, before: dict[str, Any]) -> Iterator[Change]:
    vectors = tables.embeddings
    where = {"schema": vectors.schema, "table": vectors.table}
    if before["embeddings_made"]:
        return
    known = registry.listed(connection, tables)
    fixed = next((m for m in known if m.place_table != vectors.table or m.column == before["fixed"]), None)
    later = dict.fromkeys(
        m.column
        for m in known
        if m.place_table == vectors.table and m.column not in (before["fixed"], *before["columns"])
    )
    for column in later:
        yield change(f"no column {vectors}.{column}", statement("contract_column", **where, column=column))
    if before["never_null"] and fixed:
        yield change(
            f"column {vectors}.{fixed.column} is never null",
            statement("rollback_may_be_null", **where, column=fixed.column),
        )
    yield from _key(tables, before)
    if before["model_made"]:
        dropped = statement("contract_column", **where, column=vectors.model)
        yield change(f"no column {vectors}.{vectors.model}", dropped)


def _key(tables: ModelTables, before: dict[str, Any]) -> Iterator[Change]:
    vectors, narrow = tables.embeddings, before["narrow"]
    where = {"schema": vectors.schema, "table": vectors.table}
    index = key_name(vectors)
    if not before["keyed"]:
        yield change(f"no key {index}", statement("contract_constraint", **where, constraint=index))
    if narrow and narrow["constraint"]:
        kind = sql.SQL(narrow["kind"])
        restored = statement("expand_model_key", **where, index=narrow["name"], kind=kind)
        yield change(f"key {narrow['name']} of {vectors}", restored)


def _tables(connection: Connection, tables: ModelTables, before: dict[str, Any]) -> Iterator[Change]:
    """Tables of ours go where they are empty; what somebody has put into them stays."""
    made: list[Documents | Chunks | Embeddings] = []
    if before["embeddings_made"]:
        made.append(tables.embeddings)
    if before["documents_made"]:
        made += [tables.chunks, tables.documents]
    if any(relations.count(connection, table.identifier) for table in made):
        return
    for table in made:
        dropped = statement("contract_table", schema=table.schema, table=table.table)
        yield change(f"no table {table}", dropped)
