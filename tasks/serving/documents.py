"""Documents with their chunks and vectors, as the tables of a set hold them: written whole, in the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import orjson
from psycopg import errors, sql

from sql import statement
from tasks.base.errors import NotFound, UsageError
from tasks.runs import registry
from tasks.runs.coverage import lies_with_chunks
from tasks.runs.registry import RegisteredModel
from tasks.serving.model_search import Key
from tasks.stores.postgres import wire
from tasks.stores.postgres.connection import Connection, Packed
from tasks.stores.postgres.model_tables import Chunks, Documents, ModelTables

GENERATED = ("uuid", "text", "character varying")
"""Types of keys that a value is made for where the table has no default."""
AT_ONCE = 500
"""Vectors that are written by one statement: an index takes a millisecond or more for each."""
T = TypeVar("T", Documents, Chunks)


@dataclass(frozen=True)
class Covered:
    """What a model has of a document."""

    model: str
    dimensions: int
    active: bool
    chunks: int
    """That have a vector."""


@dataclass(frozen=True)
class DocumentEmbeddings:
    """A document's chunks, and how many of them each model has a vector of."""

    document_id: Key
    title: str | None
    chunks: int
    models: tuple[Covered, ...]


@dataclass(frozen=True)
class Written:
    """A document as it is to be written."""

    title: str | None
    content: str
    metadata: Mapping[str, Any] | None = None


def embeddings_of(connection: Connection, tables: ModelTables, document_id: Key) -> DocumentEmbeddings:
    """Raises NotFound where there is no such document."""
    key, title = _document(connection, tables, document_id)
    known = registry.listed(connection, tables)
    counts = sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE {})").format(_has(tables, model)) for model in known)
    query = sql.SQL("SELECT count(*){} FROM {} AS c WHERE c.{} = %s").format(
        sql.SQL(", ") + counts if known else sql.SQL(""),
        tables.chunks.identifier,
        sql.Identifier(tables.chunks.document),
    )
    row = connection.execute(query, (key,)).fetchone()
    assert row
    chunks, *covered = row
    of_models = zip(known, covered, strict=True)
    return DocumentEmbeddings(
        key, title, chunks, tuple(Covered(m.name, m.dimensions, m.active, n) for m, n in of_models)
    )


def chunks_of(connection: Connection, tables: ModelTables, document_id: Key) -> list[tuple[str, str]]:
    """Key, as text, and text of each chunk that says something; in a transaction nobody changes them until it ends. Raises
    NotFound."""
    key, _ = _document(connection, tables, document_id)
    chunks = tables.chunks
    query = sql.SQL(
        "SELECT {key}::text, {text}::text FROM {table} WHERE {document} = %s AND {text} <> '' FOR SHARE"
    ).format(
        key=sql.Identifier(chunks.key),
        text=sql.Identifier(chunks.text),
        table=chunks.identifier,
        document=sql.Identifier(chunks.document),
    )
    return connection.execute(query, (key,)).fetchall()


def insert(connection: Connection, tables: ModelTables, document: Written, texts: Sequence[str]) -> Key:
    """Writes the document and its chunks; returns its key. Raises UsageError where a column takes no null, has no default, and
    plays no part that vecferry knows."""
    documents = tables.documents
    if is_its_own_chunk(tables):
        document = Written(document.title, texts[0], document.metadata)
    values = {documents.title: document.title, documents.text: document.content}
    if document.metadata is not None:
        values[documents.metadata] = orjson.dumps(document.metadata).decode()
        if documents.metadata is None:
            raise UsageError(f"{documents} has no jsonb column of metadata: leave metadata out")
    given = {name: value for name, value in values.items() if name}
    given |= _key(connection, documents, given)
    query = statement(
        "ingest_document",
        schema=documents.schema,
        table=documents.table,
        columns=sql.SQL(", ").join(map(sql.Identifier, given)),
        values=sql.SQL(", ").join(sql.Placeholder() * len(given)),
        key=documents.key,
    )
    row = _refusable(connection, query, list(given.values()))
    key: Key = row[0][0]
    if not is_its_own_chunk(tables):
        insert_chunks(connection, tables, key, texts)
    return key


def insert_chunks(connection: Connection, tables: ModelTables, key: Key, texts: Sequence[str]) -> None:
    """Writes the chunks of a document."""
    chunks = tables.chunks
    columns = {chunks.document: sql.SQL("{}").format(sql.Placeholder()), chunks.text: sql.SQL("t.content")}
    if chunks.position:
        columns[chunks.position] = sql.SQL("t.place - 1")
    keys = list[str | None]([None] * len(texts))
    if own := _key(connection, chunks, columns):
        columns |= {name: sql.SQL("CAST(t.key AS {})").format(sql.SQL(chunks.key_type)) for name in own}
        keys = [str(uuid4()) for _ in texts]
    query = statement(
        "ingest_chunks",
        schema=chunks.schema,
        table=chunks.table,
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(columns.values()),
        keys=sql.Placeholder(),
        texts=sql.Placeholder(),
        key=chunks.key,
        text=chunks.text,
    )
    _refusable(connection, query, [key, keys, list(texts)])


def lock(connection: Connection, tables: ModelTables, document_id: Key) -> None:
    """Until the transaction ends nobody else changes the document, or replaces its chunks in this way, and no run writes vectors of
    these, which could not be deleted then. Raises NotFound."""
    key, _ = _document(connection, tables, document_id, lock=True)
    chunks = tables.chunks
    query = sql.SQL("SELECT FROM {} WHERE {} = %s FOR UPDATE").format(
        chunks.identifier, sql.Identifier(chunks.document)
    )
    connection.execute(query, (key,))


def replace(
    connection: Connection, tables: ModelTables, document_id: Key, document: Written, texts: Sequence[str]
) -> Key:
    """Has the document say something else: its title, where one is given, its text and its chunks, whose vectors go."""
    documents, chunks, embeddings = tables.documents, tables.chunks, tables.embeddings
    key, _ = _document(connection, tables, document_id)
    given = {documents.title: document.title, documents.text: document.content}
    changed = {name: value for name, value in given.items() if name and value is not None}
    where: dict[str, Any] = {"value": sql.Placeholder()}
    connection.execute(
        statement(
            "ingest_remove_vectors",
            schema=embeddings.schema,
            table=embeddings.table,
            chunk=embeddings.chunk,
            schema_of_chunks=chunks.schema,
            chunks=chunks.table,
            key=chunks.key,
            document=chunks.document,
            **where,
        ),
        (key,),
    )
    own = is_its_own_chunk(tables)
    if not own:
        removed = statement(
            "ingest_remove_chunks", schema=chunks.schema, table=chunks.table, document=chunks.document, **where
        )
        _refusable(connection, removed, [key])
    if changed:
        assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in changed)
        at = {"schema": documents.schema, "table": documents.table, "key": documents.key}
        query = statement("ingest_update", assignments=assignments, **at, **where)
        connection.execute(query, [*changed.values(), key])
    if not own:
        insert_chunks(connection, tables, key, texts)
    return key


def write_vectors(
    connection: Connection, tables: ModelTables, model: RegisteredModel, keys: Sequence[str], vectors: np.ndarray
) -> None:
    """Writes vectors, float32[n, d], of the chunks of these keys, in statements that take seconds at most."""
    chunks, embeddings = tables.chunks, tables.embeddings
    own = lies_with_chunks(tables, model)
    place = chunks if own else embeddings
    names = {"key": chunks.key} if own else {"chunk": embeddings.chunk, "model": embeddings.model, "id": model.id}
    types = {"key_type": sql.SQL(chunks.key_type), "type": sql.SQL(model.vector_type)}
    if not own:
        types["model_type"] = sql.SQL(embeddings.model_type)
    query = statement(
        "ingest_own_vectors" if own else "ingest_vectors",
        schema=place.schema,
        table=place.table,
        column=model.column,
        keys=sql.Placeholder(),
        vectors=sql.SQL("%b"),
        **names,
        **types,
    )
    oid = connection.adapters.types[model.vector_type].oid
    for start in range(0, len(keys), AT_ONCE):
        part = vectors[start : start + AT_ONCE]
        packed = Packed(wire.pack_array(part, np.ones(len(part), bool), model.vector_type, oid))
        connection.execute(query, (list(keys[start : start + AT_ONCE]), packed))


def is_its_own_chunk(tables: ModelTables) -> bool:
    """Whether a document is searched as one piece."""
    return (tables.documents.schema, tables.documents.table) == (tables.chunks.schema, tables.chunks.table)


def _document(
    connection: Connection, tables: ModelTables, document_id: Key, lock: bool = False
) -> tuple[Key, str | None]:
    documents = tables.documents
    query = sql.SQL("SELECT {}, {}::text FROM {} WHERE {} = CAST(%s AS {}){}").format(
        sql.Identifier(documents.key),
        sql.Identifier(documents.title) if documents.title else sql.SQL("NULL"),
        documents.identifier,
        sql.Identifier(documents.key),
        sql.SQL(documents.key_type),
        sql.SQL(" FOR UPDATE" if lock else ""),
    )
    try:
        row = connection.execute(query, (str(document_id),)).fetchone()
    except errors.DataError:  # no key of that type is written so
        row = None
    if row is None:
        raise NotFound(f"{documents} has no document {document_id}")
    return row[0], row[1]


def _has(tables: ModelTables, model: RegisteredModel) -> sql.Composed:
    """Whether a chunk ``c`` has a vector of the model."""
    if lies_with_chunks(tables, model):
        return sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(model.column))
    embeddings = tables.embeddings
    return sql.SQL("EXISTS (SELECT FROM {} AS e WHERE e.{} = c.{} AND e.{} = {} AND e.{} IS NOT NULL)").format(
        embeddings.identifier,
        sql.Identifier(embeddings.chunk),
        sql.Identifier(tables.chunks.key),
        sql.Identifier(embeddings.model),
        sql.Literal(model.id),
        sql.Identifier(model.column),
    )


def _key(connection: Connection, table: Documents | Chunks, given: Mapping[str, object]) -> dict[str, str]:
    """The key, where one must be made for the table. Raises UsageError where a value is needed that nobody gives."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
        "AND attnotnull AND NOT atthasdef AND attidentity = ''",
        (table.identifier.as_string(),),
    ).fetchall()
    needed = [name for (name,) in rows if name not in given]
    if lacking := [name for name in needed if name != table.key or table.key_type not in GENERATED]:
        raise UsageError(
            f"{table}.{lacking[0]} takes no null and has no default, and vecferry does not know what to write there: "
            f"give the column a default"
        )
    return {name: str(uuid4()) for name in needed}


def _refusable(connection: Connection, query: sql.Composed, values: Sequence[object]) -> list[tuple[Any, ...]]:
    """Raises UsageError where a constraint of the user's refuses it."""
    try:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []
    except errors.IntegrityError as error:
        detail = f": {error.diag.message_detail}" if error.diag.message_detail else ""
        raise UsageError(f"the document cannot be written: {error.diag.message_primary}{detail}") from error
