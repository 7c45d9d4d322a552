"""Counts the rows of a table, and gives way to others."""

from contextlib import nullcontext

from psycopg import sql
from psycopg.pq import TransactionStatus

from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection


def count(connection: Connection, table: sql.Composable, where: sql.Composable | None = None) -> int:
    """How many rows there are, or how many of them ``where`` is true of.

    One statement, since pieces of one count would have to hold its snapshot, and its lock, while they rest. It reads on one
    processor and is followed by a rest, except in a transaction, which may hold locks of its own.
    """
    query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(table, where or sql.SQL("true"))
    within = connection.info.transaction_status != TransactionStatus.IDLE
    with nullcontext() if within else pace.turn(connection):
        row = connection.execute(query).fetchone()
    assert row
    return int(row[0])
