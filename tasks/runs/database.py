"""Where the ledger of a run is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tasks.stores.postgres.connection import Connection, connect, refusable
from tasks.stores.postgres.named import database_url, is_meant, ledger_databases, names_a_database

__all__ = [
    "Connection",
    "Database",
    "connect",
    "database_url",
    "is_meant",
    "ledger_databases",
    "names_a_database",
    "refusable",
]


@dataclass(frozen=True)
class Database:
    """The database of the ledger, in which targets in PostgreSQL lie too. A connection is lent to who asks for one."""

    connection: Callable[[], AbstractContextManager[Connection]]
