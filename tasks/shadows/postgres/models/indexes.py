"""The HNSW indexes of tables of several models: one for each column of vectors."""

from collections.abc import Iterator, Sequence

from psycopg import sql

from tasks.base.errors import UsageError
from tasks.runs.names import short
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.models.changes import Change
from tasks.stores.interface import Collection
from tasks.stores.postgres import hnsw, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import literal, quoted
from tasks.stores.postgres.model_tables import ModelTables
from tasks.stores.postgres.table import Table, index_statements


def indexes(connection: Connection, tables: ModelTables, known: Sequence[RegisteredModel]) -> Iterator[Change]:
    """What builds the indexes that are missing."""
    names: dict[tuple[str, str, str, str], str] = {}
    for model in known:
        key = (model.place_schema, model.place_table, model.column, model.metric)
        if key in names or has_index(connection, model):
            continue
        names[key] = free_name(connection, tables, model)
        table = table_of(model)
        parameters = hnsw.parameters(collection_of(model))
        if table.layout.index_type:
            yield Change(
                f"index {names[key]} on {model.place_schema}.{model.place_table}.{model.column}",
                tuple(index_statements(table, names[key], *parameters, concurrently=True)),
                alone=True,
                built=(table, names[key], collection_of(model)),
            )


def partial_indexes(connection: Connection, tables: ModelTables, models: Sequence[RegisteredModel]) -> Iterator[Change]:
    """What builds, for each of these models, an index of its rows alone. Raises UsageError where the chunks have its column."""
    for model in models:
        if model.place_table == tables.chunks.table:
            raise UsageError(f"{model.name} has its column to itself, and needs no index of its own rows")
        table, name = table_of(model), _own_name(connection, tables, model)
        if not table.layout.index_type or name in hnsw.existing(connection, table):
            continue
        only = f"{quoted(tables.embeddings.model)} = {literal(model.id)}::{tables.embeddings.model_type}"
        graph = hnsw.parameters(collection_of(model))
        yield Change(
            f"index {name} on {tables.embeddings}.{model.column}, of {model.name} alone",
            tuple(index_statements(table, name, *graph, concurrently=True, only=only)),
            alone=True,
            built=(table, name, collection_of(model)),
            only=only,
        )


def own_index(connection: Connection, tables: ModelTables, model: RegisteredModel) -> str | None:
    """The index of its rows alone, valid or not, where there is one."""
    name = _own_name(connection, tables, model)
    return name if relations.exists(connection, sql.Identifier(model.place_schema, name)) else None


def table_of(model: RegisteredModel) -> Table:
    """Where the vectors of a model lie, as a table with one column of vectors."""
    return Table(model.place_schema, model.place_table, model.layout, column=quoted(model.column))


def collection_of(model: RegisteredModel) -> Collection:
    """What an index of its vectors is built for."""
    return Collection(model.name, "", 0, model.dimensions, model.metric)


def has_index(connection: Connection, model: RegisteredModel) -> bool:
    """Whether its vectors have a valid index that searches of it use, of all rows."""
    row = connection.execute(
        "SELECT bool_or(i.indisvalid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam "
        "JOIN pg_opclass o ON o.oid = i.indclass[0] WHERE i.indrelid = to_regclass(%s) AND m.amname IN ('hnsw', 'ivfflat') "
        "AND i.indpred IS NULL AND o.opcname = %s AND pg_get_indexdef(i.indexrelid, 1, false) IN (%s, %s)",
        (model.place.as_string(), model.layout.opclass, *_definitions(model)),
    ).fetchone()
    return row == (True,)


def free_name(connection: Connection, tables: ModelTables, model: RegisteredModel) -> str:
    """``idx_embeddings_hnsw_384``; where an index of another table has that name, one with the table's."""
    usual = f"idx_embeddings_hnsw_{model.dimensions}" + ("" if model.metric == "cosine" else f"_{model.metric}")
    row = connection.execute(
        "SELECT i.indrelid = to_regclass(%s) FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid "
        "WHERE c.oid = to_regclass(%s)",
        (model.place.as_string(), sql.Identifier(model.place_schema, usual).as_string()),
    ).fetchone()
    if row is None or row == (True,):
        return usual
    return f"idx_{short(model.place_table, 40)}{usual.removeprefix('idx_embeddings')}"


def _own_name(connection: Connection, tables: ModelTables, model: RegisteredModel) -> str:
    return f"{free_name(connection, tables, model)}_{model.number}"


def _definitions(model: RegisteredModel) -> tuple[str, str]:
    """How the catalogue may write what is indexed."""
    column = quoted(model.column)
    plain = (
        model.column
        if column == f'"{model.column}"' and model.column.isidentifier() and model.column.islower()
        else column
    )
    if model.layout.index_type == model.vector_type:
        return plain, column
    return f"(({plain})::halfvec({model.dimensions}))", f"(({column})::halfvec({model.dimensions}))"
