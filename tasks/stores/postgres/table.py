"""Tables of PostgreSQL with pgvector: made, described, filled by binary COPY, read and searched."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import RawCursor, sql

from sql import statement
from tasks.base.errors import UsageError
from tasks.stores import canonical
from tasks.stores.interface import Hits, Metric, records, vector_column
from tasks.stores.postgres import pace, pgvector, wire
from tasks.stores.postgres.connection import Connection, Packed
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.wire import copy_rows

READ_ROWS = 2_000


@dataclass(frozen=True)
class Table:
    """A table of ours and how its vectors are laid out."""

    schema: str
    name: str
    layout: Layout
    key: str = "id"
    """SQL expression of a row's id, as text."""
    column: str = "embedding"
    """The column of vectors, quoted where it must be."""
    content: str = "document, metadata::text, uri"
    """SQL expressions of what a row says: document, metadata and uri, each as text."""
    settled: str = "content_hash IS NOT NULL"
    """SQL condition of the rows that we wrote."""
    label: str | None = None
    """The column that tells what a row shows, where one does."""
    rows: str | None = None
    """SQL of the rows that are meant, with an alias; None: all of the table. A search goes through its index until it has
    enough of them."""

    @cached_property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @cached_property
    def relation(self) -> sql.Composable:
        """The rows that are meant, as a FROM has them."""
        return self.identifier if self.rows is None else sql.SQL(self.rows)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def copy_ids(connection: Connection, into: sql.Composable, ids: pa.Array) -> None:
    """Sends one column of text, ``id``. An id with a NUL is left out: no table can hold it."""
    ids = ids.filter(pc.invert(pc.match_substring(ids, "\0")))
    pages = (ids[at : at + READ_ROWS].to_pylist() for at in range(0, len(ids), READ_ROWS))
    copy_rows(connection, sql.SQL("{} (id)").format(into), [(name.encode() for page in pages for name in page)])


def page(connection: Connection, table: Table, where: sql.Composable, parameters: Sequence[Any]) -> pa.RecordBatch:
    """The records that ``where`` names, all at once; its parameters are $1 and so on."""
    query = sql.SQL("SELECT {}, {}, {} FROM {} {}").format(
        sql.SQL(table.key), sql.SQL(table.content), sql.SQL(table.column), table.relation, where
    )
    with RawCursor(connection) as cursor:  # a name may hold a %, which other cursors take for a parameter
        rows = cursor.execute(query, parameters, binary=True).fetchall()
    return _batch(rows, table.layout) if rows else pa.RecordBatch.from_pylist([], records(table.layout.dimensions))


def read(
    connection: Connection, table: Table, where: sql.Composable | None = None, *, content: bool = True
) -> Iterator[pa.RecordBatch]:
    """Streams records; ``content=False`` leaves documents, metadata and uris null, which is faster."""
    chosen = table.content if content else "NULL::text, NULL::text, NULL::text"
    command = sql.SQL("COPY (SELECT {}, {}, {} FROM {} {}) TO STDOUT (FORMAT BINARY)").format(
        sql.SQL(table.key), sql.SQL(chosen), sql.SQL(table.column), table.relation, where or sql.SQL("")
    )
    # PostgreSQL goes on sending while a batch is worked on, which it would not with a cursor.
    with pace.turns(connection) as take, connection.cursor() as cursor, cursor.copy(command) as copy:
        copy.set_types(["text", "text", "text", "text", table.layout.type])
        rows, batch = copy.rows(), [()]
        while batch:
            with take():
                batch = list(islice(rows, READ_ROWS))
            if batch:
                yield _batch(batch, table.layout)


def search(
    connection: Connection, table: Table, queries: np.ndarray, k: int, ef_search: int | None = None
) -> list[Hits]:
    """k nearest rows of each query, through the index when there is one, but not where ``ef_search`` is 0; distances are as ``Hits`` has
    them."""
    layout = table.layout
    if not layout.dimensions:
        return [Hits([], np.zeros(0)) for _ in queries]
    query = sql.SQL(
        "SELECT {key}, {operand} {operator} %b::{probe} AS distance FROM {table} ORDER BY {operand} {operator} %b::{probe} LIMIT {k}"
    ).format(
        key=sql.SQL(table.key),
        operand=sql.SQL(f"({layout.operand(table.column)})"),
        operator=sql.SQL(pgvector.OPERATOR[layout.metric]),
        probe=sql.SQL(layout.probe),
        table=table.relation,
        k=sql.Literal(k),
    )
    answers = []
    with connection.transaction():
        if table.rows:  # else rows that are not meant take the places of those that are
            connection.execute("SET LOCAL hnsw.iterative_scan = 'strict_order'")
        # A prepared statement would be replanned to an exact scan and make recall read 1.0.
        if ef_search:
            connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(min(1000, ef_search))))
            # Of a small table, or for a large ef_search, the planner would rather read every row: exact, and slower.
            connection.execute("SET LOCAL enable_seqscan = off")
        elif ef_search == 0:
            connection.execute("SET LOCAL enable_indexscan = off")
        for probe in wire.pack(queries, layout.index_type or layout.type):
            rows = connection.execute(query, (Packed(probe), Packed(probe)), prepare=False, binary=True).fetchall()
            near = [(i, d) for i, d in rows if d is not None and d == d]
            answers.append(Hits([i for i, _ in near], np.array([d for _, d in near], float)))
    return answers


def describe(connection: Connection, schema: str, name: str, column: str = "embedding") -> Table | None:
    """The table's layout, read from the catalogue; None when there is no such table with that column of vectors. Raises UsageError
    where all its indexes are of distances that no search here takes."""
    row = connection.execute(
        "SELECT t.typname, a.atttypmod, "
        "  ARRAY(SELECT o.opcname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid "
        "   JOIN pg_am m ON m.oid = x.relam AND m.amname IN ('hnsw', 'ivfflat') JOIN pg_opclass o ON o.oid = i.indclass[0] "
        "   WHERE i.indrelid = c.oid AND (i.indkey[0] = a.attnum OR i.indkey[0] = 0) AND EXISTS (SELECT 1 FROM pg_depend d "
        "     WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = c.oid AND d.refobjsubid = a.attnum) "
        "   ORDER BY i.indkey[0] = 0, i.indexrelid) "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %s JOIN pg_type t ON t.oid = a.atttypid "
        "WHERE n.nspname = %s AND c.relname = %s AND t.typname IN ('vector', 'halfvec')",
        (column, schema, name),
    ).fetchone()
    if row is None:
        return None
    kind, dimensions, opclasses = row
    metrics = [opclass.split("_")[1] for opclass in opclasses]
    metric: Metric | None = next((metric for metric in metrics if metric in pgvector.OPERATOR), None)
    if metrics and metric is None:
        raise UsageError(
            f"the index on {schema}.{name}.{column} is of {opclasses[0]}: only cosine, l2 and ip can be migrated; create an index "
            "of the one that is meant, or drop that one, and cosine is taken"
        )
    return Table(schema, name, Layout(kind, dimensions if dimensions > 0 else None, metric or "cosine"))


def create_table(connection: Connection, table: Table) -> None:
    """The bare table, without keys or indexes: those come after the load."""
    for one in table_statements(table):
        connection.execute(one)


def remove(connection: Connection, table: Table, ids: Sequence[str]) -> None:
    """Deletes the rows of these ids from a table of ours."""
    connection.execute(remove_statement(table), (list(ids),))


def remove_statement(table: Table) -> sql.Composed:
    """What deletes rows: of ids, an array."""
    return statement("sync_remove", schema=table.schema, table=table.name, ids=sql.Placeholder())


def table_statements(table: Table) -> list[sql.Composed]:
    """What makes the bare table."""
    where = {"schema": table.schema, "table": table.name, "type": table.layout.type}
    dims = table.layout.dimensions
    return [statement("expand_table", **where), *([statement("expand_dimensions", **where, dims=dims)] if dims else [])]


def key_statement(table: Table, name: str) -> sql.Composed:
    """What makes the primary key."""
    return statement("expand_primary_key", schema=table.schema, table=table.name, constraint=name, key=sql.SQL("id"))


def create_index(
    connection: Connection,
    table: Table,
    name: str,
    parameters: tuple[int, int],
    concurrently: bool = False,
    only: str = "",
) -> None:
    """The HNSW index, where pgvector has one for so many dimensions; ``parameters`` are m and ef_construction."""
    for one in index_statements(table, name, *parameters, concurrently, only):
        connection.execute(one)


def index_statements(
    table: Table, name: str, m: int, ef_construction: int, concurrently: bool = False, only: str = ""
) -> list[sql.Composed]:
    """What makes the HNSW index, of the rows for which the SQL condition ``only`` holds. A build beside others that was cut off has left
    one that is no good: that goes first."""
    if table.layout.index_type is None:
        return []
    dropped = [statement("contract_index_concurrently", schema=table.schema, index=name)] if concurrently else []
    made = statement(
        "expand_hnsw_partial_concurrently" if only else "expand_hnsw_concurrently" if concurrently else "expand_hnsw",
        schema=table.schema,
        table=table.name,
        index=name,
        operand=sql.SQL(table.layout.operand(table.column)),
        opclass=table.layout.opclass,
        m=m,
        ef_construction=ef_construction,
        **({"only": sql.SQL(only)} if only else {}),
    )
    return [*dropped, made]


def _batch(rows: list[tuple[Any, ...]], layout: Layout) -> pa.RecordBatch:
    ids, documents, metadata, uris, packed = zip(*rows, strict=True)
    schema = records(layout.dimensions)
    present = [v for v in packed if v is not None]
    if not layout.dimensions or not present:
        embeddings = pa.nulls(len(rows), schema.field("embedding").type)
    else:
        matrix = wire.unpack(present, layout.type)
        if len(present) < len(rows):
            there = np.array([v is not None for v in packed])
            whole = np.zeros((len(rows), matrix.shape[1]), np.float32)
            whole[there] = matrix
            embeddings = vector_column(whole, there)
        else:
            embeddings = vector_column(matrix)
    texts = [None if text is None else canonical.dumps(json.loads(text)) for text in metadata]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids, pa.string()),
            pa.array(documents, pa.string()),
            pa.array(texts, pa.string()),
            pa.array(uris, pa.string()),
            embeddings,
        ],
        schema=schema,
    )
