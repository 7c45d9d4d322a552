"""Functions of ours that nobody who calls from now on meets, and calls under way still may: what chooses between models looks up what
it calls only once it runs. Their comment marks them, and they are dropped when the transactions of that moment have ended."""

from tasks.runs import models
from tasks.runs.plan import Target
from tasks.stores.postgres.catalogue import MADE, Function, drop, note
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.transactions import ended

WAIT = 5.0
"""Seconds for calls under way to end. Nobody waits meanwhile. What stays after it is dropped by the next rollback or contract."""


def supersede(connection: Connection, target: Target[LivePlace], function: Function) -> None:
    """Marks a function that is called no more."""
    note(connection, function, _comment(target))


def drop_superseded(connection: Connection, target: Target[LivePlace]) -> None:
    """Drops those of the target's table, unless others have been in a transaction for all of WAIT. Not in a transaction."""
    if _signatures(connection, target) and ended(connection, WAIT):
        locked(connection, lambda: _drop(connection, target))


def _drop(connection: Connection, target: Target[LivePlace]) -> None:
    models.hold(connection)
    for signature in _signatures(connection, target):
        drop(connection, signature)


def _signatures(connection: Connection, target: Target[LivePlace]) -> list[str]:
    rows = connection.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE obj_description(oid, 'pg_proc') = %s",
        (f"{MADE}: {_comment(target)}",),
    ).fetchall()
    return [signature for (signature,) in rows]


def _comment(target: Target[LivePlace]) -> str:
    return f"called no more by those who search {target.place.schema}.{target.place.table}, and to be dropped"
