"""Counts the rows of a table; in short pieces, with rests between them, where way is given to others."""

from psycopg import sql
from psycopg.pq import TransactionStatus

from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection

PIECE = 10 * pace.SHORT
"""Rows that are passed over in about a millisecond, since none of them is sent."""


def count(connection: Connection, table: sql.Composable, where: sql.Composable | None = None) -> int:
    """How many rows there are, or how many of them ``where`` is true of."""
    query = sql.SQL("SELECT count(*) FROM {} WHERE {}")
    with pace.turn(connection) as turn:
        within = connection.info.transaction_status != TransactionStatus.IDLE  # which may hold locks: no rest there
        if within or not turn.gives_way:
            row = connection.execute(query.format(table, where or sql.SQL("true"))).fetchone()
            assert row
            return int(row[0])
        with connection.transaction():
            rows = sql.SQL("SELECT {} FROM {}").format(where or sql.SQL("true"), table)
            connection.execute(sql.SQL("DECLARE vecferry_count NO SCROLL CURSOR FOR {}").format(rows))
            counted = 0
            while True:
                if where is None:
                    passed = of_them = connection.execute(f"MOVE {PIECE} IN vecferry_count").rowcount
                else:
                    piece = connection.execute(f"FETCH {pace.SHORT} FROM vecferry_count").fetchall()
                    passed, of_them = len(piece), sum(is_true is True for (is_true,) in piece)
                turn.rest()
                counted += of_them
                if not passed:
                    return counted
