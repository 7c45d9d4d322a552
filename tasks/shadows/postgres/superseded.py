"""Functions of ours that nobody who calls from now on meets, and calls under way still may: what chooses between models looks up what
it calls only once it runs. Their comment marks them, and they are dropped when the transactions of that moment have ended."""

from tasks.runs import models
from tasks.stores.postgres.catalogue import MADE, Function, drop, note
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.transactions import wait_for_transactions

WAIT = 5.0
"""Seconds for calls under way to end. Nobody waits meanwhile. What stays after it is dropped the next time."""


def supersede(connection: Connection, table: str, function: Function) -> None:
    """Marks a function that those who search the table call no more; ``table`` with its schema."""
    note(connection, function, _comment(table))


def drop_superseded(connection: Connection, table: str) -> None:
    """Drops those of the table, unless others have been in a transaction for all of WAIT. Not in a transaction."""
    if _signatures(connection, table) and wait_for_transactions(connection, WAIT):
        locked(connection, lambda: _drop(connection, table))


def _drop(connection: Connection, table: str) -> None:
    models.hold(connection)
    for signature in _signatures(connection, table):
        drop(connection, signature)


def _signatures(connection: Connection, table: str) -> list[str]:
    rows = connection.execute(
        "SELECT objoid::regprocedure::text FROM pg_description "
        "WHERE classoid = 'pg_proc'::regclass AND objsubid = 0 AND description = %s",
        (f"{MADE}: {_comment(table)}",),
    ).fetchall()
    return [signature for (signature,) in rows]


def _comment(table: str) -> str:
    return f"no longer called by those who search {table}, and to be dropped"
