"""Short locks on tables that people use."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from psycopg import errors, sql

from tasks.base.errors import TransientError
from tasks.base.words import counted
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
        "table; see pg_stat_activity"
    )
