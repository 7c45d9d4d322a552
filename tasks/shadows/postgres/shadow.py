"""What all shadows in PostgreSQL share: a page goes in, or the last piece of it, in the transaction that marks its batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tasks.embedders.interface import RowError
from tasks.runs import holding
from tasks.runs.checkpoints import Mark
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Coverage, Difference, Named
from tasks.shadows.postgres.proof import Change, Proof
from tasks.stores.interface import Built, Records, Turn
from tasks.stores.postgres import hnsw
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.records import TableRecords
from tasks.stores.postgres.storable import sift
from tasks.stores.postgres.table import Table


@dataclass(frozen=True)
class PostgresShadow(ABC):
    """One target's place in PostgreSQL. A subclass gives what is its own; ``connection`` is in the transaction that a change
    belongs to, where there is one."""

    run: Run
    target: Target[Any]

    @abstractmethod
    def expand(self) -> None:
        """Makes the place, before anything is read from the source."""

    @abstractmethod
    def table(self, connection: Connection) -> Table:
        """Where the new vectors are now. Raises UsageError when they are nowhere."""

    @abstractmethod
    def write(self, connection: Connection, page: pa.Table, reloading: bool, turn: Turn) -> None:
        """Puts in a page, or a piece of one. It rests where it holds no lock on what people use."""

    def early(self, connection: Connection, page: pa.Table, reloading: bool, turn: Turn) -> pa.Table:
        """Puts in what is better written before the transaction that marks the batch, and returns the rest of the page. What a
        crash loses of it is written again with the batch. Here all is the rest."""
        return page

    def refuse(self, connection: Connection, rejected: pa.Table) -> None:  # noqa: B027  most have nothing to note
        """Takes note of rows that were set aside. Here nothing: a comparison meets them again at the source."""

    def dependents(self, connection: Connection) -> list[str]:
        """What would silently stay with the old when this is switched."""
        return []

    def proofs(self, connection: Connection, change: Change) -> Iterable[Proof]:
        """What that change has to prove before it is kept; asked for outside of its transaction."""
        return ()

    def reread(self) -> None:  # noqa: B027  every pass reads all there is, save where rows are noted as they change
        """Has the next pass of catching up look at every row anew."""

    def replaced(self, connection: Connection) -> list[str]:
        """What ``take_back`` would overwrite that somebody else has made."""
        return []

    def passed_over(self, connection: Connection) -> bool:
        """Whether somebody has chosen by hand that people use something else."""
        return False

    @property
    def stands_in(self) -> bool:
        """Whether ``stand_in`` has anything to do."""
        return False

    def stand_in(self, connection: Connection) -> None:  # noqa: B027  most are switched in one step
        """Makes ready for the switch, in a transaction before it. What people are answered does not change."""

    def stand_back(self, connection: Connection) -> None:  # noqa: B027
        """Takes that back, where nothing was switched, or what was is taken back."""

    def drop_superseded(self, connection: Connection) -> None:  # noqa: B027
        """Drops what a change has kept for calls under way, once these have ended. Not in a transaction."""

    def gone_back(self) -> None:  # noqa: B027
        """Brings the old vectors, which people use again, in line with what was written while they were not used."""

    @abstractmethod
    def switch(self, connection: Connection) -> None:
        """Makes the new what people use."""

    def clear(self) -> None:  # noqa: B027  most drop what they made
        """Takes the vectors out of what stays when a run that was not switched is taken back, before that. It rests where others
        work."""

    @abstractmethod
    def take_back(self, connection: Connection, switched: bool) -> str:
        """The reverse of ``switch``, or of everything where nothing was switched yet; says what was done."""

    @abstractmethod
    def contract(self, connection: Connection) -> list[str]:
        """Drops what only ``take_back`` would need; says what."""

    def sift(self, page: pa.Table, refused: Mapping[int, RowError]) -> tuple[pa.Table, pa.Table | None]:
        place = self.target.place
        return sift(self.run.connection, page, place.layout, place.nul, refused)

    def load(self, page: pa.Table, rejected: pa.Table | None, reloading: bool, mark: Mark) -> bool:
        with self.run.connection() as connection, self.run.turn(connection) as turn:
            rest = self.early(connection, page, reloading, turn)
            with connection.transaction():
                if mark.is_written(connection):
                    return False
                self.write(connection, rest, reloading, turn)
                if rejected:
                    self.refuse(connection, rejected)
                mark.write(connection)
        return True

    def key(self) -> bool:
        return False

    def index(self) -> Built:
        return Built()

    def indexed(self) -> float:
        with self.run.connection() as connection:
            at = hnsw.progress(connection, holding.application(self.run.run_id))
        return at[1] if at else 0.0

    @contextmanager
    def made(self) -> Iterator[Records]:
        with self.run.connection() as connection:
            yield TableRecords(connection, self.table(connection))

    def old(self) -> AbstractContextManager[Records] | None:
        return None

    def in_use(self) -> bool:
        return True

    def coverage(self) -> Coverage | None:
        return None

    def stuck(self) -> Named | None:
        return None

    def changed(self, passes: Difference) -> Difference:
        return passes

    def notes(self) -> list[str]:
        return []
