"""Transactions of others that are under way."""

import time

from tasks.stores.postgres.connection import Connection

PAUSE = 0.02
_UNDER_WAY = """
SELECT virtualtransaction FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'virtualxid' AND mode = 'ExclusiveLock' AND granted AND pid <> pg_backend_pid()
  AND datname = current_database() AND usename IS NOT NULL
"""
"""Of people, not of the server's own processes. Every transaction holds this lock, and every role may see it."""


def wait_for_transactions(connection: Connection, seconds: float) -> bool:
    """Waits until all of the database's that are under way now have ended, for so many seconds at the most; whether they have."""
    until, left = time.monotonic() + seconds, _under_way(connection)
    while left and time.monotonic() < until:
        time.sleep(PAUSE)
        left &= _under_way(connection)
    return not left


def _under_way(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute(_UNDER_WAY).fetchall()}
