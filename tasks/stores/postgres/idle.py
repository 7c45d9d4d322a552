"""Connections that are kept from one use to the next while a run is worked on: a new one costs PostgreSQL a process, and
that process a fault for every page of shared memory that it touches."""

import select
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg.pq import TransactionStatus

from tasks.stores.postgres.connection import Connection, connect


@dataclass
class Connections:
    """To one database, by the name of the application. Those that nobody uses stay open while ``kept``, until ``close``."""

    url: str
    kept: bool = False
    idle: dict[str, list[Connection]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def connection(self, application: str) -> Iterator[Connection]:
        """One as ``connect`` makes it, or one that nobody uses now. What is set for its session must be reset."""
        lent = self._taken(application) or self._fresh(application)
        try:
            yield lent
        finally:
            self._give_back(application, lent)

    def close(self) -> None:
        """Closes those that nobody uses, and the others when they are given back."""
        with self.lock:
            self.kept = False
            unwanted = [connection for waiting in self.idle.values() for connection in waiting]
            self.idle.clear()
        for connection in unwanted:
            connection.close()

    def _fresh(self, application: str) -> Connection:
        connection = connect(self.url, application)
        # Over so long a life plans of many statements would pile up, and outlive the tables that they are for: only what says so
        # is prepared.
        connection.prepare_threshold = sys.maxsize
        return connection

    def _taken(self, application: str) -> Connection | None:
        while True:
            with self.lock:
                if not self.idle[application]:
                    return None
                connection = self.idle[application].pop()
            if lives(connection):
                return connection
            connection.close()

    def _give_back(self, application: str, connection: Connection) -> None:
        fit = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
        with self.lock:
            if fit and self.kept:
                self.idle[application].append(connection)
                return
        connection.close()


def lives(connection: Connection) -> bool:
    """Whether the server has not ended it, as it does when it is restarted. A round trip is made only where something was
    received unasked, which may be the news of that."""
    try:
        received = select.poll()
        received.register(connection.fileno(), select.POLLIN)
        if received.poll(0):
            connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
