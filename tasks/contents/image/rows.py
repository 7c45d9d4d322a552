"""Pictures that a table holds as bytea: a reference is the key of a row."""

import threading
from dataclasses import dataclass, field
from functools import cached_property

from tasks.base.errors import FatalError, TransientError
from tasks.contents.image.local import too_large
from tasks.contents.image.patience import Later, Patience
from tasks.contents.image.references import shown
from tasks.embedders.interface import RowError
from tasks.stores.postgres.connection import Connection, connect, refusable
from tasks.stores.postgres.named import database_url

CONNECTIONS = 4
"""At once, whatever the concurrency: the database serves others too, and is near."""
_READ_ONLY = "SET default_transaction_read_only = on; SET statement_timeout = '2min'"


@dataclass(frozen=True)
class Rows:
    """``table``, ``picture`` and ``key`` are SQL as the plan has parsed it: a table's quoted name, and two expressions over its
    columns. What is larger than ``max_bytes`` does not leave the database."""

    database: str
    """How its URL is called."""
    table: str
    picture: str
    key: str
    max_bytes: int
    patience: Patience = field(default_factory=Patience)

    @cached_property
    def _query(self) -> str:
        table, picture, key = (part.replace("%", "%%") for part in (self.table, self.picture, self.key))
        size = f"octet_length({picture})"
        return f"SELECT {size}, CASE WHEN {size} <= {self.max_bytes} THEN {picture} END FROM {table} WHERE {key} = %s LIMIT 1"

    @cached_property
    def _threads(self) -> threading.local:
        return threading.local()

    @cached_property
    def _connections(self) -> list[Connection]:
        """All that were made, by whichever thread."""
        return []

    def read(self, reference: str) -> bytes | RowError:
        return self.patience.read(shown(reference), lambda: self._attempt(reference))

    def _attempt(self, reference: str) -> bytes | RowError | Later:
        name = f"the picture of row {shown(reference)}"
        try:
            with refusable(f"images: {self.table}"):
                row = self._connection().execute(self._query, (reference,), binary=True).fetchone()
        except TransientError as error:
            self._threads.connection = None
            return Later(str(error))
        if row is None:
            return RowError("missing", f"{self.table} has no row {shown(reference)} any more")
        size, data = row
        if size is None:
            return RowError("missing", f"{name} is NULL")
        if data is None:
            return too_large(name, size, self.max_bytes)
        if not isinstance(data, bytes):
            raise FatalError(f"images.column: {self.picture} of {self.table} is no bytea")
        return data

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = connect(database_url(self.database), "vecferry images")
            self._connections.append(connection)
            connection.execute(_READ_ONLY)
            self._threads.connection = connection
        return connection

    def stop(self) -> None:
        self.patience.stopped.set()

    def close(self) -> None:
        self.stop()
        for connection in self._connections:
            connection.close()
