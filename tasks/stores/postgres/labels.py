"""Rows of a table by what they show: whole labels, drawn at random in the database."""

from psycopg import sql

from tasks.stores.interface import Labelled
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table

_ROWS = """WITH labelled AS (
    SELECT {key} AS id, nullif({label}::text, '') AS label FROM {table} WHERE {vector} IS NOT NULL
), sized AS (SELECT label, count(*) AS members FROM labelled GROUP BY label)"""
_COUNTED = """
SELECT count(*) FILTER (WHERE members > 1 AND label IS NOT NULL), count(*) FILTER (WHERE members = 1 AND label IS NOT NULL),
    coalesce(sum(members) FILTER (WHERE label IS NULL), 0)::bigint FROM sized"""
_DRAWN = """, drawn AS (
    SELECT label, sum(least(members, {each})) OVER (ORDER BY hashtextextended(label, 0), label) AS upto
    FROM sized WHERE label IS NOT NULL AND members > 1
), numbered AS (
    SELECT id, label, row_number() OVER (PARTITION BY label ORDER BY hashtextextended(id, 0), id) AS place
    FROM labelled JOIN drawn USING (label) WHERE upto <= {rows}
) SELECT id, label FROM numbered WHERE place <= {each} ORDER BY id"""


def labelled(connection: Connection, table: Table, rows: int, each: int) -> Labelled | None:
    """As ``Records.labelled``."""
    if table.label is None:
        return None
    values: dict[str, sql.Composable] = {
        "key": sql.SQL(table.key),
        "label": sql.Identifier(table.label),
        "table": table.relation,
        "vector": sql.SQL(table.column),
        "rows": sql.Literal(rows),
        "each": sql.Literal(min(each, rows)),
    }
    with pace.turn(connection):
        counts = connection.execute(sql.SQL(_ROWS + _COUNTED).format(**values)).fetchone()
    with pace.turn(connection):
        drawn: dict[str, str] = dict(connection.execute(sql.SQL(_ROWS + _DRAWN).format(**values)).fetchall())
    assert counts
    return Labelled(table.label, drawn, *counts)
