"""Connections that are kept from one use to the next while a run is worked on: a new one costs PostgreSQL a process, and
that process a fault for every page of shared memory that it touches."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.pq import TransactionStatus

from tasks.stores.postgres.connection import Connection, connect

_lock = threading.Lock()
_keepers: dict[str, int] = defaultdict(int)
_idle: dict[tuple[str, str], list[Connection]] = defaultdict(list)


@contextmanager
def keeping(url: str) -> Iterator[None]:
    """While the body runs, connections to ``url`` stay open between two uses."""
    with _lock:
        _keepers[url] += 1
    try:
        yield
    finally:
        with _lock:
            _keepers[url] -= 1
            unwanted = [] if _keepers[url] else [c for key in list(_idle) if key[0] == url for c in _idle.pop(key)]
        for connection in unwanted:
            connection.close()


@contextmanager
def connection(url: str, application: str) -> Iterator[Connection]:
    """A connection as ``connect`` makes it, or one that nobody uses now. What is set for its session must be reset."""
    lent = _taken(url, application) or _fresh(url, application)
    try:
        yield lent
    finally:
        _give_back(url, application, lent)


def _fresh(url: str, application: str) -> Connection:
    connection = connect(url, application)
    # Over so long a life plans of many statements would pile up, and outlive the tables that they are for.
    connection.prepare_threshold = None
    return connection


def _taken(url: str, application: str) -> Connection | None:
    while True:
        with _lock:
            waiting = _idle[url, application]
            if not waiting:
                return None
            connection = waiting.pop()
        try:
            connection.execute("SELECT 1")
        except psycopg.Error:  # the server was restarted, or ended it
            connection.close()
        else:
            return connection


def _give_back(url: str, application: str, connection: Connection) -> None:
    fit = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
    with _lock:
        if fit and _keepers[url]:
            _idle[url, application].append(connection)
            return
    connection.close()
