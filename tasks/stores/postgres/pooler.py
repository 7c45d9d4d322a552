"""Tells a pooler that hands a connection's transactions to different servers, which breaks what a migration stands on:
advisory locks, settings, and cursors of a session (PgBouncer, "Features", and Supavisor's transaction mode)."""

from collections.abc import Callable
from typing import Any

import psycopg

Plain = psycopg.Connection[Any]


def is_transaction_pooler(connection: Plain, another: Callable[[], Plain]) -> bool:
    """Whether the connection leads to one. ``another`` opens a second connection to the same place; it is asked for only
    where there is a pooler of some kind between us and the server."""
    if connection.info.backend_pid == _server(connection):
        return False  # a pooler makes up the process id that it tells its client at the start
    with another() as other:
        # In an order in which no pool deals out two servers so that each seems to be somebody's own.
        seen = [(c, _server(c)) for c in (connection, other, other, connection, connection, other)]
    own, theirs = {pid for c, pid in seen if c is connection}, {pid for c, pid in seen if c is other}
    return len(own) > 1 or bool(own & theirs)


def _server(connection: Plain) -> int:
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    assert row
    return int(row[0])
