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
    def _slots(self) -> threading.Semaphore:
        return threading.Semaphore(CONNECTIONS)

    @cached_property
    def _idle(self) -> list[Connection]:
        """Connections that nobody reads by just now."""
        return []

    def host(self, reference: str) -> str:
        return self.table

    def read(self, reference: str, once: bool = False) -> bytes | RowError:
        return self.patience.read(shown(reference), lambda: self._attempt(reference), once)

    def _attempt(self, reference: str) -> bytes | RowError | Later:
        name = f"the picture of row {shown(reference)}"
        try:
            with self._slots, refusable(f"images: {self.table}"):
                connection = self._idle.pop() if self._idle else self._connect()
                row = connection.execute(self._query, (reference,), binary=True).fetchone()
                self._idle.append(connection)  # one that has failed is not used again
        except TransientError as error:
            return Later(str(error))
        if row is None:
            return RowError("missing", f"{self.table} has no row {shown(reference)} any more")
        size, data = row
        if size is None:
            return RowError("missing", f"{name} is NULL")
        if data is None:
            return too_large(name, size, self.max_bytes)
        if not isinstance(data, bytes):
            raise FatalError(f"images.column: {self.picture} of {self.table} is not bytea")
        return data

    def _connect(self) -> Connection:
        connection = connect(database_url(self.database), "vecferry images")
        connection.execute(_READ_ONLY)
        return connection

    def stop(self) -> None:
        self.patience.stopped.set()

    def close(self) -> None:
        self.stop()
        while self._idle:
            self._idle.pop().close()
