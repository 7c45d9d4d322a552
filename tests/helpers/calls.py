"""Calls of functions in sessions of their own, which pause where a test wants them to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tasks.stores.postgres.connection import Connection

LOCK = 42
"""The advisory lock at which a call pauses."""
PAUSE = f"PERFORM pg_catalog.pg_advisory_xact_lock_shared({LOCK}) WHERE current_setting('application_name') = 'call';"


class Call:
    """A call in a session of its own, which pauses where its function takes the lock."""

    def __init__(self, database: str, statement: str) -> None:
        self.outcome: Any = None
        self._session = psycopg.connect(database, autocommit=True, application_name="call")
        self._thread = threading.Thread(target=self._send, args=(statement,))
        self._thread.start()

    def _send(self, statement: str) -> None:
        try:
            self.outcome = self._session.execute(statement.encode()).fetchall()
        except psycopg.Error as error:
            self.outcome = error

    def end(self) -> Any:
        self._thread.join()
        self._session.close()
        return self.outcome


@contextmanager
def pausing(connection: Connection, database: str, statement: str) -> Iterator[Call]:
    """The call, begun and not ended within."""
    connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    call, until = Call(database, statement), time.monotonic() + 20
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
    while connection.execute(waiting, (LOCK,)).fetchone() != (1,) and time.monotonic() < until:
        time.sleep(0.01)
    assert call.outcome is None
    try:
        yield call
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
        call.end()


def pause_in(connection: Connection, name: str) -> None:
    """Makes the moment long between the beginning of a call and its look-up of what it calls."""
    row = connection.execute("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", (name,)).fetchone()
    assert row
    made = row[0].replace("BEGIN", f"BEGIN {PAUSE}", 1)
    assert made != row[0]
    connection.execute(made)
