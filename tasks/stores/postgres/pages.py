"""A page of records beside a table of ours: what of it the table lacks or holds otherwise, and how it gets there."""

from typing import Any

import pyarrow as pa
from psycopg import sql

from sql import statement
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table
from tasks.stores.postgres.wire import copy_records, copy_statement, records_into, vector_array

_PAGE = (
    "WITH page AS (SELECT id, document, metadata::jsonb, uri, content_hash, embedding FROM "
    "unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::{}[]) "
    "AS page (id, document, metadata, uri, content_hash, embedding)) "
)
_STAGED = sql.Identifier("page")


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
    """Puts a page of records into the transaction's temporary table ``page``, from which ``merge_staged`` takes it. Call it
    inside a transaction."""
    connection.execute(_stage_statement(table))
    copy_records(connection, _STAGED, page, table.layout.type)


def merge_staged(connection: Connection, table: Table) -> None:
    """Merges the page that was staged into the table: a row that is there gets what the page says."""
    connection.execute(_merge_statement(table))


def merge_statements(table: Table) -> list[sql.Composed]:
    """What both send."""
    return [_stage_statement(table), copy_statement(records_into(_STAGED)), _merge_statement(table)]


def _stage_statement(table: Table) -> sql.Composed:
    return statement("sync_page", schema=table.schema, table=table.name)


def _merge_statement(table: Table) -> sql.Composed:
    return statement("sync_upsert", schema=table.schema, table=table.name)
