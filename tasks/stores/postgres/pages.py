"""A page of records beside a table of ours: what of it the table lacks or holds otherwise, and how it gets there."""

from typing import Any

import pyarrow as pa
from psycopg import sql

from sql import statement
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table
from tasks.stores.postgres.wire import copy_records, vector_array

_PAGE = (
    "WITH page AS (SELECT id, document, metadata::jsonb, uri, content_hash, embedding FROM "
    "unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::{}[]) "
    "AS page (id, document, metadata, uri, content_hash, embedding)) "
)


def differing(connection: Connection, table: Table, page: pa.Table, tolerance: float) -> list[tuple[Any, ...]]:
    """The records that the table lacks or holds otherwise: id, whether the table has it, and what it holds there
    (document, metadata as text, uri, content_hash). Call it inside a transaction.

    The page travels as arrays and is compared as it arrives: nearly always nothing differs, and a temporary table of
    it would cost three times as much.
    """
    if not page.num_rows:
        return []
    # Arrays have no statistics, and a hash join would read the whole table once a page.
    connection.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
    kind = table.layout.type
    query = sql.SQL(_PAGE).format(sql.SQL(kind)) + statement(
        "sync_difference", schema=table.schema, table=table.name, tolerance=tolerance
    )
    columns = [page.column(name).to_pylist() for name in ("id", "document", "metadata", "uri", "content_hash")]
    return connection.execute(query, (*columns, vector_array(connection, page, kind)), prepare=False).fetchall()


def stage_page(connection: Connection, table: Table, page: pa.Table) -> None:
    """Puts a page of records into the transaction's temporary table ``page``, from which sync_upsert.sql merges it into
    ``table``. Call it inside a transaction."""
    connection.execute(statement("sync_page", schema=table.schema, table=table.name))
    copy_records(connection, sql.Identifier("page"), page, table.layout.type)
