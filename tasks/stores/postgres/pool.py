"""A bounded pool of connections, for what answers many at once and outlives a database that is restarted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool, PoolTimeout

from tasks.base.errors import TransientError
from tasks.stores.postgres.connection import SETTINGS, Connection, adapt, classified, connect
from tasks.stores.postgres.idle import lives

T = TypeVar("T")
PATIENCE = 2.0
"""Seconds that a connection is waited for: while all are in use, or the database is gone."""
RECONNECTING = 5.0
"""Seconds that one connection is tried for. Then the next who asks has it tried again, rather than when a growing pause ends."""


class Pool:
    """Connections to one database, each as ``connect`` makes it. Threads share it."""

    def __init__(self, url: str, most: int, timeout: float, patience: float = PATIENCE) -> None:
        """At most ``most`` connections, in which a statement takes ``timeout`` seconds at most; each is waited for ``patience`` seconds.
        Raises UsageError where the database cannot be reached."""
        self._patience = patience
        connect(url).close()  # says in plain words what is wrong with the URL

        def configure(connection: Connection) -> None:
            connection.execute(SETTINGS)
            connection.execute(sql.SQL("SET statement_timeout = {}").format(sql.Literal(int(timeout * 1000))))
            adapt(connection)
            connection.prepare_threshold = None

        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            min_size=0,
            max_size=most,
            kwargs={"autocommit": True, "application_name": "vecferry client", "client_encoding": "UTF8"},
            configure=configure,
            check=_check,
            reconnect_timeout=RECONNECTING,
            open=True,
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lends one. Raises TransientError where none is to be had in time, or while it is in use the database goes."""
        try:
            with self._pool.connection(self._patience) as connection, classified("ask the database"):
                yield connection
        except PoolTimeout:
            raise TransientError(
                f"no connection to the database within {self._patience:g} s: it is gone, or all connections are in use"
            ) from None

    def reading(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns, with a connection. It only reads, and so is done once more where the server had ended the
        connection, and nobody knew yet. Raises as ``connection`` does."""
        lent: Connection | None = None
        try:
            with self.connection() as lent:
                return work(lent)
        except TransientError:
            if lent is None or not lent.closed:
                raise
        with self.connection() as lent:
            return work(lent)

    def close(self) -> None:
        self._pool.close()


def _check(connection: Connection) -> None:
    if not lives(connection):
        raise psycopg.OperationalError("the server has ended the connection")
