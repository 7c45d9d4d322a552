"""What a run has come to: a dataclass whose JSON is what the command prints and a flow returns."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.base.words import counted
from tasks.runs.ledger import State
from tasks.runs.spending import Spending
from tasks.runs.waiting import Waiting


@dataclass(frozen=True)
class Touched:
    """What catching up did to a target, in rows."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __str__(self) -> str:
        """``1 inserted, 5 updated``, or ``0 changed``."""
        return ", ".join(f"{count:,} {what}" for what, count in vars(self).items() if count) or "0 changed"


@dataclass(frozen=True)
class TargetOutcome:
    """What has become of one target."""

    name: str
    table: str
    kind: str
    """Of its place."""
    loads: bool
    """Whether a place was filled for it; else what was there is synced."""
    rows: int
    """As verification counted them; before it, as the source did at the plan."""
    loaded: int
    touched: Touched
    quarantined: int
    failed_batches: tuple[int, ...]
    dimensions: int | None
    shape: str | None = None
    """Of its vectors, for people; None where they see it elsewhere."""
    queue: Waiting | None = None
    """Its rows that changed and wait for the next pass; None where nobody notes what changes."""

    @property
    def left(self) -> str:
        """``; 3 rows in the queue, …``: what waits once it is caught up; empty where nothing does."""
        return f"; {self.queue}" if self.queue and self.queue.rows else ""

    def __str__(self) -> str:
        """What the run did to it, for people."""
        if self.loads:
            what = f"{counted(self.loaded, 'row')} loaded"
            what += f"; caught up, {self.touched}" if self.touched != Touched() else ""
        else:
            what = f"synced in place, {self.touched}"
        return f"{self.name} → {self.table}: {what}"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "table": self.table,
            "mode": self.kind,
            "rows": self.rows,
            "loaded": self.loaded,
            "touched": asdict(self.touched),
            "quarantined": self.quarantined,
            "failed_batches": list(self.failed_batches),
            "dimensions": self.dimensions,
            "queue": self.queue and asdict(self.queue),
        }


@dataclass(frozen=True)
class Later:
    """A command that will work."""

    command: str
    since: datetime | None
    """From when on; None: when what goes on now has ended."""


@dataclass(frozen=True)
class Outcome:
    """What a run has come to, and what to do next with it."""

    run_id: str
    flow: str
    database: str
    """The name of the database of its ledger."""
    source: str
    """Where it reads, for people."""
    state: State
    now: str | None
    """What goes on with it at this moment."""
    exit: int
    error: str | None
    targets: tuple[TargetOutcome, ...]
    gates: dict[str, Any] | None
    """By their names in the form."""
    spent: Spending | None
    """None where its model costs nothing."""
    started: datetime
    changed: datetime
    seconds: float
    """Of work."""
    snapshot: str | None
    """Where its snapshot lies, once that is complete."""
    report: str | None
    log: str | None
    next: str | None
    """A command that works now."""
    later: Later | None

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        spent, later = self.spent, self.later
        return {
            **asdict(self),
            "targets": [target.as_json() for target in self.targets],
            "spent": spent and {**vars(spent), "saved": spent.saved},
            "started": _iso(self.started),
            "changed": _iso(self.changed),
            "later": later and {"command": later.command, "from": later.since and _iso(later.since)},
        }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
