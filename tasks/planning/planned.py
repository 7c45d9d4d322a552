"""What a plan is before it is frozen, and what it is shown as."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks.base.errors import UsageError
from tasks.embedders.interface import Allowed
from tasks.planning.layouts import LayoutCost
from tasks.runs.database import Database
from tasks.runs.plan import Plan, Request

INDEX_ROWS_PER_SECOND = 1_000
"""A cautious guess for HNSW at 384 dimensions on two cores; it falls with the dimensions. Nothing that writes nothing can
measure it."""


@dataclass(frozen=True)
class Draft:
    """A plan with what is wrong with it, by names, the catalogue and a few records."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    """Each would stop the run."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Look:
    """What a sample of a collection shows."""

    sampled: int
    metadata: dict[str, list[str]]
    """Key → the types of its values."""
    without_vector: int
    without_document: int
    row_bytes: float
    row_seconds: float
    """What one record took to be read and, where that is free of charge, embedded."""


@dataclass(frozen=True)
class Cost:
    """What a paid model will take at the most, and probably."""

    texts: int
    """Different texts that are not kept yet."""
    kept: int
    """Different texts whose vectors are kept from earlier runs."""
    tokens: int
    exact: bool
    """Whether the tokens were counted; else they are the usual quarter of the bytes."""
    most_tokens: int
    """The bytes: no token has less than one."""
    price: float | None
    """Dollars per million tokens; None where it is not known."""

    @property
    def dollars(self) -> float:
        """0 where the price is not known."""
        return self.tokens * (self.price or 0.0) / 1e6

    @property
    def most_dollars(self) -> float:
        return self.most_tokens * (self.price or 0.0) / 1e6


@dataclass(frozen=True)
class Listing:
    """What a plan shows of its targets, a row each; None is shown as a dash."""

    heads: tuple[str, ...]
    rows: list[tuple[str | None, ...]]


@dataclass(frozen=True)
class More:
    """What a plan of one kind tells besides."""

    name: str
    """In JSON."""
    values: Mapping[str, Any]
    lines: Sequence[str]
    """For people."""


@dataclass(frozen=True)
class Planned:
    """A plan with what a person wants to know before it is run."""

    plan: Plan
    listing: Listing
    looks: list[Look]
    sql: list[str]
    problems: list[str] = field(default_factory=list)
    """Each would stop the run."""
    warnings: list[str] = field(default_factory=list)
    cost: Cost | None = None
    """None where the model costs nothing."""
    allowed: Allowed | None = None
    """The limits of the account; None where it was not asked, or would not say."""
    least_seconds: float | None = None
    """What these limits make embedding take at least; None where they are not known."""
    copied_bytes: int = 0
    """Of the private copy that the source is read from, which is removed afterwards; 0 where it is read itself."""
    layouts: Sequence[LayoutCost] = ()
    """For live tables: both layouts of each, the chosen one first."""
    more: Sequence[More] = ()

    @property
    def rows(self) -> int:
        return sum(t.rows for t in self.plan.targets)

    @property
    def batches(self) -> int:
        return sum(-(-t.rows // self.plan.request.batch_rows) for t in self.plan.targets)

    @property
    def storage_bytes(self) -> int:
        """The snapshot, which is about as large as the rows; the new vectors, where they are kept and where they are
        searched; and the HNSW graph on disk."""
        total = 0.0
        for target, look in zip(self.plan.targets, self.looks, strict=True):
            total += target.rows * (2 * look.row_bytes + 4 * (target.dimensions or 0) + target.place.row_bytes)
        vectors = sum(4 * t.rows * (t.dimensions or 0) for t in self.plan.targets)
        chosen = sum(cost.bytes for cost in self.chosen_layouts)
        return int(total + max(0, chosen - vectors))

    @property
    def chosen_layouts(self) -> list[LayoutCost]:
        """What the plan's own layout costs each live table."""
        return [cost for cost in self.layouts if cost.chosen]

    @property
    def seconds(self) -> float:
        """A rough guess, from what the sample took: a record is read for the snapshot, written, and read to be verified.
        The first batches tell better. A paid model's limits set the least."""
        rows = [t.rows for t in self.plan.targets]
        moved = sum(n * 3 * look.row_seconds for n, look in zip(rows, self.looks, strict=True))
        dims = [max(t.dimensions or 0, 100) for t in self.plan.targets]
        indexed = sum(n * d / 384 / INDEX_ROWS_PER_SECOND for n, d in zip(rows, dims, strict=True))
        return moved + indexed + (self.least_seconds or 0.0)


class Planner(Protocol):
    """What plans one kind of migration. ``database`` is that of the ledger; where the targets lie, the request says."""

    def draft(self, database: Database, request: Request, run_id: str) -> Draft:
        """Targets and problems, found by names, the catalogue and a few records: it takes as long for many rows as for
        few. Raises UsageError when the source or a name in the request is not there."""
        ...

    def examine(self, database: Database, draft: Draft) -> Draft:
        """The draft with what takes a pass over the keys of a table: how many rows it has, and whether they hold anything
        that is in the way. What a run keeps; done once, when it begins."""
        ...

    def estimate(self, database: Database, draft: Draft) -> Planned:
        """What it will do, take and cost, with a pass over the texts where they are paid for. Others are given way."""
        ...

    def prepare(self, database: Database) -> None:
        """Makes what its places stand on in the store of its targets, where it is missing: once a plan has been accepted, and
        in PostgreSQL beside the ledger, which is there by then."""
        ...


def refuse_problems(draft: Draft) -> Plan:
    """The plan itself. Raises UsageError with every problem when there are any."""
    if draft.problems:
        raise UsageError("this plan cannot run: " + "; ".join(draft.problems))
    return draft.plan
