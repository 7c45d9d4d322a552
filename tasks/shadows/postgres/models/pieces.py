"""The pieces that tables of several models get: tables, columns, keys, indexes, triggers and the view, each as the change that
makes it."""

from collections.abc import Iterator, Sequence

from psycopg import sql

from sql import statement
from tasks.base.words import listed
from tasks.runs import coverage
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.models import bodies, functions as model_functions
from tasks.shadows.postgres.models.changes import Change, change
from tasks.shadows.postgres.models.draft import key_name
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.fixed_column import UniqueKey
from tasks.stores.postgres.model_tables import Chunks, Embeddings, ModelTables
from tasks.stores.postgres.pgvector import MAX_TUPLE

VIEW = "embedding_models"
KINDS = ("insert", "delete", "update", "truncate")


def documents(tables: ModelTables) -> Change:
    """Documents and chunks of our own."""
    docs, chunks = tables.documents, tables.chunks
    made = statement("expand_documents", schema=docs.schema, documents=docs.table, chunks=chunks.table)
    return change(f"tables {docs} and {chunks}", made)


def embeddings(connection: Connection, tables: ModelTables) -> Iterator[Change]:
    """The table of vectors, for whom the chunks are, and of whom the chunks are."""
    vectors, chunks = tables.embeddings, tables.chunks
    where = {"schema": vectors.schema, "table": vectors.table}
    made = statement(
        "expand_embeddings",
        **where,
        chunk=vectors.chunk,
        chunk_type=sql.SQL(chunks.key_type),
        model=vectors.model,
        chunks_schema=chunks.schema,
        chunks=chunks.table,
        key=chunks.key,
        toast_tuple_target=MAX_TUPLE,
    )
    yield change(f"table {vectors}", made)
    if relations.is_guarded(connection, chunks.identifier):
        of_chunks = {"chunks_schema": chunks.schema, "chunks": chunks.table, "key": chunks.key}
        guarded = statement("grant_chunks_alike", **where, **of_chunks, chunk=vectors.chunk)
        yield change(f"policies of {chunks} for the rows of {vectors}", guarded)
    rights = [
        statement(
            "grant_table_alike",
            **where,
            privilege=sql.SQL(privilege),
            role=sql.SQL(role),
            option=sql.SQL("WITH GRANT OPTION" if further else ""),
        )
        for role, privilege, further in relations.grants(connection, chunks.identifier)
    ]
    owner = relations.owner(connection, chunks.identifier)
    if owner is not None:
        rights.append(statement("grant_owner_alike", **where, role=owner))
    if rights:
        yield change(f"rights on {vectors}, as on {chunks}", *rights)


def model_column(tables: ModelTables, default: int | None) -> Change:
    """The column that names a row's model, in a table that had none."""
    vectors = tables.embeddings
    added = statement(
        "expand_model_id",
        schema=vectors.schema,
        table=vectors.table,
        model=vectors.model,
        default=sql.SQL("" if default is None else f"DEFAULT {default}"),
    )
    return change(f"column {vectors}.{vectors.model}, which rewrites nothing", added)


def may_be_null(table: Embeddings, column: str) -> Change:
    """Rows of other models have no vector in it."""
    dropped = statement("expand_may_be_null", schema=table.schema, table=table.table, column=column)
    return change(f"column {table}.{column} may be null, for rows of other models", dropped)


def vector_column(table: Embeddings, column: str, dimensions: int) -> Change:
    """The column of so many dimensions."""
    where = {"schema": table.schema, "table": table.table}
    added = statement("expand_column", **where, column=column, type="vector", dims=dimensions)
    return change(f"column {table}.{column}", added)


def unique_key(tables: ModelTables, instead: UniqueKey | None) -> list[Change]:
    """One row a chunk and model; ``instead`` of one a chunk, where the table has that."""
    vectors = tables.embeddings
    where = {"schema": vectors.schema, "table": vectors.table}
    index = key_name(vectors)
    build = [
        statement("contract_index_concurrently", schema=vectors.schema, index=index),
        statement("expand_model_key_concurrently", **where, index=index, chunk=vectors.chunk, model=vectors.model),
    ]
    swap = [_without(vectors, instead)] if instead else []
    kind = sql.SQL(instead.kind if instead else "UNIQUE")
    swap.append(statement("expand_model_key", **where, index=index, kind=kind))
    of = f"({vectors.chunk}, {vectors.model})"
    in_place = f" in place of {instead.constraint or instead.index}" if instead else ""
    return [
        change(f"unique index {index} on {vectors} {of}", *build, alone=True),
        change(f"key {index} of {vectors}{in_place}", *swap),
    ]


def no_narrow_key(tables: ModelTables, narrow: UniqueKey) -> Change:
    """Nothing that allows one row a chunk, where chunk and model are a key already."""
    return change(
        f"no key {narrow.constraint or narrow.index} of {tables.embeddings}", _without(tables.embeddings, narrow)
    )


def _without(table: Embeddings, key: UniqueKey) -> sql.Composed:
    if key.constraint:
        return statement("contract_constraint", schema=table.schema, table=table.table, constraint=key.constraint)
    return statement("contract_index", schema=table.schema, index=key.index)


def count_chunks(tables: ModelTables, known: Sequence[RegisteredModel]) -> Change:
    """The triggers that count chunks, and the vectors that lie with them."""
    changed = coverage.chunk_changes(tables, known)
    return change(f"counters of {tables.chunks}", _counting(tables, tables.chunks, "chunk", changed))


def count_embeddings(tables: ModelTables, known: Sequence[RegisteredModel]) -> Change:
    """The triggers that count vectors, by the columns that there are."""
    changed = coverage.embedding_changes(tables, known)
    return change(f"counters of {tables.embeddings}", _counting(tables, tables.embeddings, "embedding", changed))


def _counting(tables: ModelTables, table: Chunks | Embeddings, role: str, changed: str) -> sql.Composed:
    return statement(
        "expand_coverage",
        schema=table.schema,
        table=table.table,
        set=str(tables.set_id),
        role=role,
        changed=sql.SQL(changed),
        **trigger_names(tables.set_id),
    )


def trigger_names(set_id: int) -> dict[str, str]:
    """Of the triggers that count, by what they fire for."""
    return {kind: f"vecferry_{set_id}_{kind}" for kind in KINDS}


def view(connection: Connection, tables: ModelTables) -> Change:
    """The registry beside the tables, for those who read the chunks."""
    where = {"schema": tables.schema, "view": VIEW}
    made = statement("expand_models_view", **where, type=sql.SQL(tables.embeddings.model_type), set=tables.set_id)
    grants = [
        statement("grant_view", **where, role=sql.SQL(role))
        for role in relations.readers(connection, tables.chunks.identifier)
    ]
    return change(f"view {tables.schema}.{VIEW}", made, *grants)


def functions(connection: Connection, tables: ModelTables, known: Sequence[RegisteredModel]) -> Change:
    """What searches by the models, as it is made from the registry once they are in it."""
    made = model_functions.written(tables, known, pgvector_schema(connection) or "public")
    names = ["search_chunks", "search_chunks_multi", *(bodies.name_of(m) for m in known if m.searched)]
    return change(f"functions {listed(names)} in {tables.schema}", *made)
