"""What either layout of new vectors would cost a live table, by the indexes that it has. Writes nothing.

A filled column makes a new version of every row, and a new version goes into every index of the table again; a table
beside it is loaded by COPY and touches nothing.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from tasks.runs.plan import Target
from tasks.stores.postgres import pgvector
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace

SIDE_TABLE_ROWS, COLUMN_ROWS = 25_000, 7_800
"""Rows a second, measured at 1536 dimensions on two cores: a binary COPY, and an UPDATE of a table with a primary key and
no other index."""
INSERT_TO_SEARCH = 0.4
"""An insertion into an HNSW index to a search of it with 64 candidates: 0.2 and 0.4 at 50,000 and 5,000 rows of 384
dimensions, the rest of an UPDATE taken off."""
OTHER_INDEX = 0.00005
"""Seconds a row that a btree or GIN index takes: 0.09 ms at most, of a few measurements."""
PROBES = 15


@dataclass(frozen=True)
class Index:
    """An index of the live table."""

    name: str
    method: str
    bytes: int


@dataclass(frozen=True)
class LayoutCost:
    """One layout's price for one table, beside embedding and the new index, which both need."""

    table: str
    layout: Literal["column", "side_table"]
    seconds: float
    bytes: int
    """What the database grows by, new vectors included."""
    why: str


def layout_costs(connection: Connection, target: Target[LivePlace], rows: int) -> list[LayoutCost]:
    """Both layouts, the chosen one first."""
    live = target.place.live
    found = indexes(connection, target)
    row = connection.execute(
        "SELECT pg_relation_size(c.oid), greatest(c.reltuples, 1) FROM pg_class c WHERE c.oid = to_regclass(%s)",
        (live.identifier.as_string(),),
    ).fetchone()
    assert row
    heap, known = row[0], max(row[1], float(target.collection.count), 1.0)
    share = min(1.0, rows / known)
    vectors = rows * (4 * (target.dimensions or 0) + 8)
    hnsw = [index for index in found if index.method == "hnsw"]
    a_row = 1 / COLUMN_ROWS + OTHER_INDEX * (len(found) - len(hnsw))
    a_row += INSERT_TO_SEARCH * _search_seconds(connection, target) * len(hnsw)
    again = int(share * (heap + sum(index.bytes for index in found)))
    named = ", ".join(f"{index.name} ({index.method}, {index.bytes / 1e6:,.1f} MB)" for index in found)
    where = f"{live.schema}.{live.table}"
    costs = [
        LayoutCost(
            where, "column", rows * a_row, vectors + again, f"every row is written anew, and into {named} again"
        ),
        LayoutCost(where, "side_table", rows / SIDE_TABLE_ROWS, vectors + rows * 100, "the table is not touched"),
    ]
    return sorted(costs, key=lambda cost: cost.layout != target.place.kind)


def indexes(connection: Connection, target: Target[LivePlace]) -> list[Index]:
    """The table's indexes, the largest first."""
    rows = connection.execute(
        "SELECT c.relname, m.amname, pg_relation_size(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am m ON m.oid = c.relam WHERE i.indrelid = to_regclass(%s) AND i.indisready ORDER BY 3 DESC, 1",
        (target.place.live.identifier.as_string(),),
    ).fetchall()
    return [Index(*row) for row in rows]


def _search_seconds(connection: Connection, target: Target[LivePlace]) -> float:
    """The median of a few searches by the old vectors with as many candidates as an insertion looks at by default."""
    live = target.place.live
    column = sql.Identifier(live.vectors)
    probes = connection.execute(
        sql.SQL("SELECT {}::text FROM {} WHERE {} IS NOT NULL LIMIT {}").format(
            column, live.identifier, column, sql.Literal(PROBES)
        )
    ).fetchall()
    query = sql.SQL("SELECT 1 FROM {} ORDER BY {} {} %s::{} LIMIT 64").format(
        live.identifier, column, sql.SQL(pgvector.OPERATOR[live.layout.metric]), sql.SQL(live.layout.type)
    )
    taken = []
    with connection.transaction():
        connection.execute("SET LOCAL hnsw.ef_search = 64")
        connection.execute("SET LOCAL enable_seqscan = off")
        for (probe,) in probes:
            started = time.perf_counter()
            connection.execute(query, (probe,)).fetchall()
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) if taken else 0.0
