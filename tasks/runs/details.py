"""What the ledger keeps of a batch beside its numbers: a dataclass a stage. Kept as JSON; what an earlier version noted
otherwise, or did not note, is read with the defaults."""

from dataclasses import dataclass
from typing import ClassVar

from tasks.runs.dataset import Part


@dataclass(frozen=True)
class Listed:
    """The ids of a target were listed."""

    stage: ClassVar[str] = "list"
    alone: bool = False
    """For a snapshot alone, before anything followed the writes at the source."""


@dataclass(frozen=True)
class Cut:
    """Which ids a batch of the snapshot has, and the part that they were written to."""

    stage: ClassVar[str] = "snapshot"
    target: int
    listing: int
    ids: str
    """The file of the listing, below the snapshot's folder."""
    group: int
    """Its row group there."""
    part: Part | None = None
    """None before it is done."""

    @property
    def written(self) -> Part:
        """The part of a batch that is done."""
        assert self.part
        return self.part


@dataclass(frozen=True)
class Loaded:
    """Into which target a part is loaded."""

    stage: ClassVar[str] = "load"
    target: int


@dataclass(frozen=True)
class Indexed:
    """How a target's index was built."""

    stage: ClassVar[str] = "index"
    target: int
    memory: int = 0
    """Bytes."""
    workers: int = 0
    index_type: str | None = None


@dataclass(frozen=True)
class Followed:
    """What catching up changed in a target, in rows, and how the last pass ended."""

    stage: ClassVar[str] = "catch_up"
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    foreign: int = 0
    quarantined: int = 0
    passes: int = 0
    settled: bool = True


@dataclass(frozen=True)
class Translated:
    """A threshold of similarity by the old vectors, and what it becomes by the new ones, with its interval of 95 %."""

    old: float
    new: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.new:.3f} (95% interval {self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Verified:
    """What a target's checks came to."""

    stage: ClassVar[str] = "verify"
    passed: bool = True
    failed_checks: tuple[str, ...] = ()
    quarantined: int | None = None
    threshold: Translated | None = None
    """None where the run has none, or it cannot be translated."""


@dataclass(frozen=True)
class Restored:
    """What became of the rows of a part that was written back into a column, beside those that have their vectors."""

    stage: ClassVar[str] = "restore"
    target: int
    into: str
    gone: int = 0
    changed: int = 0
    taken: int = 0
    first_gone: tuple[str, ...] = ()
    """A few by name, as the next two."""
    first_changed: tuple[str, ...] = ()
    first_taken: tuple[str, ...] = ()


Detail = Listed | Cut | Loaded | Indexed | Followed | Verified | Restored
