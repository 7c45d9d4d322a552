"""Where a place differs from its source: rows by what is wrong with them."""

from dataclasses import dataclass

KEPT = 1_000
"""Ids of one kind that are remembered by name; the rest are counted."""


@dataclass(frozen=True)
class Named:
    """How many, and the first of them by name."""

    count: int = 0
    ids: tuple[str, ...] = ()

    @property
    def first(self) -> str:
        """`` ('7')``: the first three by name; empty where there are none."""
        shown = ", ".join(repr(i[:40]) for i in self.ids[:3])
        return f" ({shown}{', …' if self.count > 3 else ''})" if self.count else ""

    def __add__(self, other: "Named") -> "Named":
        return Named(self.count + other.count, (self.ids + other.ids)[:KEPT])


@dataclass(frozen=True)
class Coverage:
    """Rows that say something, and those of them without a vector, counted where they lie."""

    rows: int
    without: int
    refused: int
    """Of those without: set aside, with the reason."""
    waiting: int
    """Of those without: noted as changed, and not caught up yet."""
    unexplained: Named
    """The others of those without."""


@dataclass(frozen=True)
class Refilled:
    """What became of the rows of a page of a snapshot that was written back."""

    restored: int = 0
    gone: Named = Named()
    """Rows that are not there any more."""
    changed: Named = Named()
    """Rows that say something else by now, and were left out."""
    taken: Named = Named()
    """Rows that somebody gave something else meanwhile, and that were left alone."""

    def __add__(self, other: "Refilled") -> "Refilled":
        return Refilled(
            self.restored + other.restored,
            self.gone + other.gone,
            self.changed + other.changed,
            self.taken + other.taken,
        )


def named(ids: list[str]) -> Named:
    """All of ``ids``, the first thousand by name."""
    return Named(len(ids), tuple(ids[:KEPT]))


@dataclass(frozen=True)
class Difference:
    """Rows by what is wrong with them."""

    compared: int = 0
    missing: Named = Named()
    stale: Named = Named()
    orphaned: Named = Named()
    edited: Named = Named()
    """Changed by somebody else since we wrote them: left as they are."""
    added: Named = Named()
    """Put into the table by somebody else: left as they are."""
    quarantined: Named = Named()
    listed: int = 0
    """Ids that the source listed."""
    counted: tuple[int, int] | None = None
    """The source's own count, before and after it listed them; None where it was not asked."""

    @property
    def touched(self) -> int:
        return self.missing.count + self.stale.count + self.orphaned.count

    @property
    def foreign(self) -> int:
        return self.edited.count + self.added.count

    @property
    def ids(self) -> list[str]:
        """What differs, as far as it is known by name."""
        return [*self.missing.ids, *self.stale.ids, *self.orphaned.ids]

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(
            self.compared + other.compared,
            self.missing + other.missing,
            self.stale + other.stale,
            self.orphaned + other.orphaned,
            self.edited + other.edited,
            self.added + other.added,
            self.quarantined + other.quarantined,
            self.listed + other.listed,
            self.counted or other.counted,
        )
