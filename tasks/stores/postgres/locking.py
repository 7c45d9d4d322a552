"""Short locks on tables that people use."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from psycopg import errors, sql

from tasks.base.errors import TransientError
from tasks.base.words import counted, duration
from tasks.stores.postgres.connection import Connection

T = TypeVar("T")
LOCK_TIMEOUT = "50ms"
"""A reader waits behind a waiting rename: with 2 s one stalled 1.7 s, with 50 ms and retries at most 0.05 s."""
LOCK_TRIES = 200


def locked(connection: Connection, change: Callable[[], T], keep: bool = True) -> T:
    """Runs ``change`` in one transaction that never makes a reader wait behind it for longer than LOCK_TIMEOUT; without ``keep``
    it is taken back in the end."""
    for attempt in range(LOCK_TRIES):
        try:
            with connection.transaction(force_rollback=not keep):
                connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
                return change()
        except (errors.LockNotAvailable, errors.SerializationFailure):
            time.sleep(min(1.0, 0.02 * 2 ** min(attempt, 6)) * random.uniform(0.5, 1.5))
    raise TransientError(
        f"no lock within {LOCK_TIMEOUT} in {counted(LOCK_TRIES, 'attempt')}: a long transaction holds the "
        f"table; {_holders(connection) or 'see pg_stat_activity'}"
    )


def _holders(connection: Connection) -> str:
    """Who has been using tables of others than the server for the longest, and how to end it."""
    rows = connection.execute(
        "SELECT a.pid, coalesce(a.usename, a.backend_type), a.application_name, a.state, "
        "extract(epoch FROM clock_timestamp() - a.xact_start)::float8, string_agg(DISTINCT l.relation::regclass::text, ', ') "
        "FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation "
        "WHERE l.granted AND l.locktype = 'relation' AND a.datname = current_database() AND a.pid <> pg_backend_pid() "
        "AND a.xact_start IS NOT NULL AND c.relkind IN ('r', 'p', 'm') "
        "AND c.relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'vecferry', 'pg_toast')) "
        "GROUP BY a.pid, a.usename, a.backend_type, a.application_name, a.state, a.xact_start ORDER BY a.xact_start LIMIT 3"
    ).fetchall()
    return "; ".join(
        f"process {pid} of {who}{f' ({program})' if program else ''}, {state or 'at work'} for {duration(seconds)}, uses {tables}: "
        f"SELECT pg_terminate_backend({pid}) ends it"
        for pid, who, program, state, seconds, tables in rows
    )
