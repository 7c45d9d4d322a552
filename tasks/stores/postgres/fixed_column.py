"""The column of vectors that tables came with, before they serve several models: where it is, and what stands in the way of
vectors of a second model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from tasks.base.errors import UsageError
from tasks.base.words import listed
from tasks.stores.interface import Metric
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_roles import Detected
from tasks.stores.postgres.model_tables import Chunks, Embeddings, Roles
from tasks.stores.postgres.pgvector import Layout, VectorType

_COLUMNS = """
SELECT a.attname, t.typname, nullif(a.atttypmod, -1), a.attnotnull,
    (SELECT o.opcname FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0] JOIN pg_class c ON c.oid = i.indexrelid
     JOIN pg_am m ON m.oid = c.relam WHERE i.indrelid = a.attrelid AND m.amname IN ('hnsw', 'ivfflat')
     AND (i.indkey[0] = a.attnum OR pg_get_indexdef(i.indexrelid) LIKE '%%(' || quote_ident(a.attname) || '%%')
     ORDER BY i.indexrelid LIMIT 1)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND t.typname IN ('vector', 'halfvec') AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS = """
SELECT c.relname, k.conname, CASE WHEN i.indisprimary THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, i.indisvalid,
    ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) u(n) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.n),
    i.indpred IS NOT NULL, ARRAY(SELECT conname::text FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
WHERE i.indrelid = to_regclass(%s) AND i.indisunique ORDER BY c.relname
"""


@dataclass(frozen=True)
class VectorColumn:
    """A column of vectors."""

    schema: str
    table: str
    name: str
    type: VectorType
    dimensions: int | None
    metric: Metric
    """As its index has it; cosine where it has none."""
    indexed: bool
    never_null: bool

    @property
    def layout(self) -> Layout:
        return Layout(self.type, self.dimensions, self.metric)

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}.{self.name}"


@dataclass(frozen=True)
class UniqueKey:
    """What keeps rows of a table apart."""

    index: str
    constraint: str | None
    kind: Literal["PRIMARY KEY", "UNIQUE"]
    valid: bool
    columns: tuple[str, ...]
    partial: bool
    referenced_by: tuple[str, ...]
    """Foreign keys that rest on it."""


def vector_columns(connection: Connection, table: Chunks | Embeddings) -> list[VectorColumn]:
    """Those of a table."""
    rows = connection.execute(_COLUMNS, (table.identifier.as_string(),)).fetchall()
    return [
        VectorColumn(
            table.schema, table.table, name, kind, dimensions, _metric(opclass), opclass is not None, never_null
        )
        for name, kind, dimensions, never_null, opclass in rows
    ]


def fixed_column(connection: Connection, detected: Detected, roles: Roles) -> VectorColumn | None:
    """The column of the vectors that are searched now, in the table of vectors, or in that of the chunks where there is none. Raises
    UsageError where it may be one of several, or no model could own it."""
    tables = detected.tables
    places: list[tuple[str, Chunks | Embeddings, str | None]] = []
    if not detected.makes_embeddings:
        places.append(("embeddings", tables.embeddings, roles.embeddings.get("vector")))
    if not detected.makes_documents:
        places.append(("chunks", tables.chunks, roles.chunks.get("vector")))
    for role, table, asked in sorted(places, key=lambda place: place[2] is None):  # what is named comes first
        columns = vector_columns(connection, table)
        if asked is not None:
            columns = [column for column in columns if column.name == asked]
            if not columns:
                raise UsageError(f"{table} has no column of vectors {asked!r}, which -p roles.{role}.vector names")
        if len(columns) > 1:
            raise UsageError(
                f"{table} has several columns of vectors, {listed([c.name for c in columns])}: name the one that is searched with "
                f"-p roles.{role}.vector=COLUMN"
            )
        if columns:
            return _of_fixed_size(columns[0])
    return None


def unique_keys(connection: Connection, table: sql.Identifier) -> list[UniqueKey]:
    """What keeps rows of a table apart, its primary key among it."""
    rows = connection.execute(_KEYS, (table.as_string(),)).fetchall()
    return [
        UniqueKey(index, constraint, kind, valid, tuple(columns), partial, tuple(referring))
        for index, constraint, kind, valid, columns, partial, referring in rows
    ]


def one_row_a_chunk(keys: Sequence[UniqueKey], embeddings: Embeddings) -> UniqueKey | None:
    """What allows a chunk only one row."""
    return next((key for key in keys if key.columns == (embeddings.chunk,)), None)


def one_row_a_chunk_and_model(keys: Sequence[UniqueKey], embeddings: Embeddings) -> UniqueKey | None:
    """What ON CONFLICT (chunk, model) rests on."""
    pair = {embeddings.chunk, embeddings.model}
    return next((key for key in keys if set(key.columns) == pair and key.valid and not key.partial), None)


def _of_fixed_size(column: VectorColumn) -> VectorColumn:
    if column.dimensions is None:
        raise UsageError(
            f"{column} takes vectors of any size, so no index and no model can own it: give it the size that its vectors have, "
            f"ALTER TABLE {column.schema}.{column.table} ALTER COLUMN {column.name} TYPE {column.type}(N)"
        )
    return column


def _metric(opclass: str | None) -> Metric:
    if opclass and "_l2_" in opclass:
        return "l2"
    return "ip" if opclass and "_ip_" in opclass else "cosine"
