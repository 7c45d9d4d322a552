"""The shadow: where a target's new vectors live until the switch, and how they get there, are searched, followed and compared.
One module a kind of place. The targets of one store are switched together, by its unit.

No stage is handed the store's transaction: it hands the mark of a batch, or of a switch, in. A store that keeps the ledger too
sets it in the transaction of what it marks; any other one after its write was acknowledged, which must then do no harm twice.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from tasks.base.progress import Tell, quiet
from tasks.embedders.interface import RowError
from tasks.runs.checkpoints import Mark
from tasks.shadows.difference import Coverage, Difference, Named, Refilled
from tasks.stores.interface import Built, Records


class Shadow(Protocol):
    """The place of one target of one run. Everything may be called again after a kill."""

    def expand(self) -> None:
        """Makes the place, before anything is read from the source."""
        ...

    def sift(self, page: pa.Table, refused: Mapping[int, RowError]) -> tuple[pa.Table, pa.Table | None]:
        """Splits a page of records with hashes into what can be stored and what cannot; None when all can. ``refused`` are
        rows that the model has no vector for, by their index. The rejected rows are as they came, with two columns more,
        ``class`` and ``message``."""
        ...

    def load(self, page: pa.Table, rejected: pa.Table | None, reloading: bool, mark: Mark) -> bool:
        """Puts in a page of records with hashes, takes note of the rows that were set aside, and sets the mark. ``reloading``
        when some of them may be there. Returns False, and leaves all as it is, where the mark is set already."""
        ...

    def key(self) -> bool:
        """Makes the key that rows are found by, once they are in; whether there was none."""
        ...

    def index(self) -> Built:
        """Builds what is missing for searching; returns how."""
        ...

    def indexed(self) -> float:
        """How far the building of the index is that goes on now, from 0 to 1."""
        ...

    def made(self) -> AbstractContextManager[Records]:
        """The new vectors, to be read and searched. Raises UsageError when they are nowhere."""
        ...

    def old(self) -> AbstractContextManager[Records] | None:
        """The vectors that people search until the switch, of the same rows; None where there are none at this place."""
        ...

    def in_use(self) -> bool:
        """Whether people write what is there, or have written some of it, so that nobody can tell how many rows that are."""
        ...

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """One pass of catching up: brings the place in line with the source and returns what was not. ``only`` restricts
        it to these ids. Raises VerificationRefused where it would delete more than that share of what people use."""
        ...

    def reread(self) -> None:
        """Has the next pass of catching up look at every row anew, as if all had changed: what a document stands for may be another
        thing by now."""
        ...

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """Compares every row with the source, or those of ``only``; writes nothing."""
        ...

    def coverage(self) -> Coverage | None:
        """Which rows that say something have a vector, by the store and not by what the run has noted of them. None where the
        place is compared with a source elsewhere, which counts its rows itself, and for a smoke run, which fills some rows only."""
        ...

    def stuck(self) -> Named | None:
        """Rows that are noted as changed, and that another pass of catching up does not bring in line. Makes that pass. None where
        nobody notes what changes."""
        ...

    def changed(self, passes: Difference) -> Difference:
        """What the run has changed in all, given what the passes of this start did."""
        ...

    def notes(self) -> list[str]:
        """What people have to know of the place beside what is checked."""
        ...


class Refill(Protocol):
    """The old vectors of one target on their way back into its source, under a name beside what is there. Everything may be called
    again after a kill."""

    @property
    def name(self) -> str:
        """What people call the place."""
        ...

    def is_empty(self, begun: bool) -> bool:
        """Whether nothing is there yet. Raises UsageError where the place cannot be used, and, unless it was ``begun``, where it
        holds anything."""
        ...

    def make(self) -> None:
        """Makes the place where it is missing."""
        ...

    def fill(self, page: pa.Table, mark: Callable[[Refilled], Mark]) -> None:
        """Puts in a page of the snapshot, and sets the mark of what became of it."""
        ...

    def advice(self) -> str | None:
        """What is left to do there, for people."""
        ...


class Unit(Protocol):
    """The shadows of one store, which are switched, taken back and contracted as one."""

    def active(self) -> bool | None:
        """Whether people use what the run made, by the store; None where the store and the ledger cannot disagree."""
        ...

    def dependents(self) -> list[str]:
        """What would silently stay with the old when this is switched."""
        ...

    def stuck(self) -> list[str]:
        """What changed at the source and does not arrive, a line a target."""
        ...

    def switch(self, mark: Mark) -> list[str]:
        """Makes the new what people use; says what is to be known of it. Raises TransientError where others hold it for too
        long, and VerificationRefused where people would be answered otherwise than before."""
        ...

    def replaced(self) -> list[str]:
        """What people have put in the place of what the switch made, which ``take_back`` would overwrite."""
        ...

    def take_back(self, switched: bool, mark: Mark, force: bool = False) -> list[str]:
        """The reverse of ``switch``, or of everything where nothing was switched yet; says what was done. Raises
        VerificationRefused where people would be answered otherwise than before; with ``force`` that is said only."""
        ...

    def settle(self) -> None:
        """Ends what a kill has left of a ``take_back`` whose mark is set; and brings what is used again in line with what was written
        meanwhile."""
        ...

    def contract(self, mark: Mark) -> list[str]:
        """Drops what only ``take_back`` would need; says what."""
        ...
