"""What a stage writes into the ledger together with what it did: handed to the store, which sets it at the right moment."""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.runs.run import Run
from tasks.stores.postgres.connection import Connection


@dataclass(frozen=True)
class Mark:
    """A change of the ledger. ``Connection`` is always one to the ledger's database."""

    run: Run
    write: Callable[[Connection], object]
    is_written: Callable[[Connection], bool] = lambda _: False

    def within(self, connection: Connection) -> None:
        """Sets it in the transaction that goes on."""
        self.write(connection)

    def alone(self) -> None:
        """Sets it in a transaction of its own."""
        with self.run.connection() as connection, connection.transaction():
            self.write(connection)

    def is_set(self, connection: Connection | None = None) -> bool:
        """Whether somebody set it meanwhile."""
        if connection is not None:
            return self.is_written(connection)
        with self.run.connection() as own:
            return self.is_written(own)
