"""What either layout of new vectors rewrites of a live table. Writes nothing.

A filled column makes a new version of every row, and a new version goes into every index of the table; a table beside it
is loaded by COPY and touches nothing.
"""

from dataclasses import dataclass
from typing import Literal

from tasks.runs.plan import Target
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace

KEY_BYTES = 100
"""Of a row of a side table beside its vector: header, key, hash."""


@dataclass(frozen=True)
class Index:
    """An index of the live table."""

    name: str
    method: str
    bytes: int


@dataclass(frozen=True)
class LayoutCost:
    """What one layout does to one table, beside embedding and the new index, which both need."""

    table: str
    layout: Literal["column", "side_table"]
    chosen: bool
    rows: int
    """Rows that are written once more."""
    indexes: tuple[Index, ...]
    """Indexes that these rows go into once more, the largest first."""
    bytes: int
    """What the database grows by, new vectors included."""


def layout_costs(connection: Connection, target: Target[LivePlace]) -> list[LayoutCost]:
    """Both layouts, the chosen one first."""
    table, there = f"{target.place.live.schema}.{target.place.live.table}", indexes(connection, target)
    row = connection.execute(
        "SELECT pg_relation_size(c.oid) FROM pg_class c WHERE c.oid = to_regclass(%s)",
        (target.place.live.identifier.as_string(),),
    ).fetchone()
    assert row
    rows = target.rows
    share = min(1.0, rows / max(target.collection.count, 1))
    vectors = rows * (4 * (target.dimensions or 0) + 8)
    rewritten = int(share * (row[0] + sum(index.bytes for index in there)))
    costs = [
        LayoutCost(table, "column", target.place.in_table, rows, there, vectors + rewritten),
        LayoutCost(table, "side_table", target.place.in_shadow, 0, (), vectors + rows * KEY_BYTES),
    ]
    return sorted(costs, key=lambda cost: not cost.chosen)


def indexes(connection: Connection, target: Target[LivePlace]) -> tuple[Index, ...]:
    """The table's indexes, the largest first."""
    rows = connection.execute(
        "SELECT c.relname, m.amname, pg_relation_size(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am m ON m.oid = c.relam WHERE i.indrelid = to_regclass(%s) AND i.indisready ORDER BY 3 DESC, 1",
        (target.place.live.identifier.as_string(),),
    ).fetchall()
    return tuple(Index(*row) for row in rows)
