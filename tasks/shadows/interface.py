"""The shadow: where a target's new vectors live until the switch, and how they get there, are searched, switched and
taken back. One module a kind of place."""

from typing import Any, Protocol

import pyarrow as pa

from tasks.runs.artifacts import Tell, quiet
from tasks.shadows.difference import Difference
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pace import AT_ONCE, Turn
from tasks.stores.postgres.table import Table


class Shadow(Protocol):
    """The place of one target of one run. Everything may be called again after a kill."""

    def expand(self, connection: Connection) -> None:
        """Makes the place, before anything is read from the source."""
        ...

    @property
    def piece_rows(self) -> int | None:
        """Rows that may be locked at once where people use what is written, so that nobody waits long for one of them;
        None where a page is written whole, in the transaction that marks its batch."""
        ...

    def write(self, connection: Connection, page: pa.Table, again: bool, turn: Turn = AT_ONCE) -> None:
        """Puts in a page of records with hashes, or a piece of one; the last in the transaction that marks its batch.
        ``again`` when some of them may be there. It rests where it holds no lock on what people use."""
        ...

    def refuse(self, connection: Connection, rejected: pa.Table) -> None:
        """Takes note of rows that were quarantined, in the same transaction."""
        ...

    def key(self, connection: Connection) -> bool:
        """Makes the key that rows are found by, once they are in; whether there was none."""
        ...

    def index(self, connection: Connection) -> dict[str, Any]:
        """Builds what is missing for searching; returns how: memory, workers, index_type."""
        ...

    def table(self, connection: Connection) -> Table:
        """Where the new vectors are now, to be read and searched. Raises UsageError when they are nowhere."""
        ...

    def bring(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """One pass of catching up: brings the place in line with the source and returns what was not. ``only`` restricts
        it to these ids. Raises VerificationRefused where it would delete more than that share of what people use."""
        ...

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """Compares every row with the source, or those of ``only``; writes nothing."""
        ...

    def brought(self, connection: Connection, passes: Difference) -> Difference:
        """What the run has changed in all, given what the passes of this start did."""
        ...

    def dependents(self, connection: Connection) -> list[str]:
        """What would silently stay with the old when this is switched."""
        ...

    def switch(self, connection: Connection) -> None:
        """Makes the new what people use, in the caller's transaction."""
        ...

    def take_back(self, connection: Connection, switched: bool) -> str:
        """The reverse of ``switch``, or of everything where nothing was switched yet; says what was done."""
        ...

    def contract(self, connection: Connection) -> list[str]:
        """Drops what only ``take_back`` would need; says what."""
        ...
