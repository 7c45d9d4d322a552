"""What a run is going to do, fixed before it starts. A run's plan is stored with it and never changes."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.runs import plan_versions
from tasks.stores.interface import Collection, Metric
from tasks.stores.postgres import live_table
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.pgvector import Layout, VectorType
from tasks.stores.postgres.table import Table

SCHEMA = "vecferry"
"""Where the ledger and the tables that nobody reads yet live."""
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
CARRIED = "carried"

Mode = Literal["create", "replace", "sync", "column", "side_table"]
"""create: the final name is free. replace: a table of ours steps aside. sync: a table of ours gets the difference.
column, side_table: a live table gets other vectors, in itself or beside it."""
Nul = Literal["quarantine", "escape"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, as a plan is made from it. Secrets are names."""

    flow: str
    source: dict[str, Any]
    """{"store": name, **options} for tasks.stores.registry."""
    database: str
    embedder: str | None
    """None: the vectors are carried."""
    batch_rows: int
    limit: int | None
    rollback_days: float
    """Days after the cutover in which ``contract`` refuses, unless it is told otherwise."""
    nul: Nul = "quarantine"
    budget_usd: float | None = None
    """Dollars that the run may spend; None: as many as it takes."""

    @property
    def followed(self) -> bool:
        """Whether a run brings what changes at its source after the switch; else a later run does."""
        return False

    def places(self) -> Sequence[tuple[str, str]]:
        """The places that one run has to itself: a table, as it was named, and its column."""
        return ()


@dataclass(frozen=True, kw_only=True)
class CollectionsRequest(Request):
    """Collections of a store become tables."""

    collections: tuple[str, ...] | None
    """None: all of them."""
    schema: str
    tables: dict[str, str]
    """Collection → table name, where the default is not wanted."""
    halfvec: bool
    metrics: dict[str, Metric] = field(default_factory=dict)
    """Collection → metric, where the source does not tell."""


@dataclass(frozen=True)
class Asked:
    """One live table, as the user named it; what is None is read from the catalogue."""

    table: str
    id: tuple[str, ...] | None
    text: str | None
    """A template of columns in braces: ``{title}: {body}``."""
    old_column: str
    new_column: str
    function: str | None
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class ColumnsRequest(Request):
    """Live tables get vectors of another space beside the old ones."""

    targets: tuple[Asked, ...]
    layout: Literal["column", "side_table"]
    old_embedder: str | None
    similarity_threshold: float | None
    """What the application asks of a hit by the old vectors, to be translated."""
    queries: str | None
    """A file of labelled queries."""

    @property
    def followed(self) -> bool:
        return True

    def places(self) -> Sequence[tuple[str, str]]:
        return [(asked.table, asked.new_column) for asked in self.targets]


@dataclass(frozen=True)
class Target:
    """One collection and the table it becomes."""

    number: int
    collection: Collection
    schema: str
    table: str
    shadow: str
    """Name in the schema vecferry while nobody reads it; unused by a sync."""
    mode: Mode
    type: VectorType
    dimensions: int | None
    space: str
    """Fingerprint of what makes its vectors comparable."""

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def layout(self) -> Layout:
        return Layout(self.type, self.dimensions, self.collection.metric)

    @property
    def final(self) -> Table:
        return Table(self.schema, self.table, self.layout)

    @property
    def hidden(self) -> Table:
        return Table(SCHEMA, self.shadow, self.layout)


@dataclass(frozen=True)
class ColumnTarget(Target):
    """One live table and the column that its new vectors are searched in. Its ``shadow`` is the table of what is known
    of each row: key, content hash, and in the layout side_table the vector."""

    live: LiveTable
    new_column: str
    function: str | None
    """The search function that switches; None where there is none."""
    old_space: str | None

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}.{self.new_column}"

    @property
    def beside(self) -> bool:
        """Whether the vectors lie in a table of their own."""
        return self.mode == "side_table"


@dataclass(frozen=True)
class Plan:
    """The frozen plan of one run."""

    run_id: str
    request: Request
    targets: tuple[Target, ...]
    flow_run: str | None = None
    """The id of the flow run that began it; None for one of 0.1.0."""

    @property
    def limited(self) -> bool:
        """Whether this is a smoke run, which never cuts over."""
        return bool(self.request.limit) or any(isinstance(t, ColumnTarget) and t.live.limit for t in self.targets)

    @property
    def page_bytes(self) -> int:
        """Of the new vectors of a batch."""
        return self.request.batch_rows * 4 * max((t.dimensions or 0 for t in self.targets), default=0)

    def as_json(self) -> dict[str, Any]:
        return {"version": plan_versions.latest(), **asdict(self)}


def from_json(data: dict[str, Any]) -> Plan:
    """The plan that ``as_json`` wrote, by whichever version of this program. Raises UsageError when a later one did."""
    data = plan_versions.upgraded(data)
    request = data["request"]
    columns = "layout" in request
    read_request, read_target = (_columns_request, _column_target) if columns else (_collections_request, _target)
    return Plan(data["run_id"], read_request(request), tuple(map(read_target, data["targets"])), data.get("flow_run"))


def _collections_request(data: dict[str, Any]) -> Request:
    return stored.read(CollectionsRequest, data)


def _columns_request(data: dict[str, Any]) -> Request:
    return stored.read(ColumnsRequest, {**data, "targets": [stored.read(Asked, asked) for asked in data["targets"]]})


def _target(data: dict[str, Any]) -> Target:
    return stored.read(Target, {**data, "collection": stored.read(Collection, data["collection"])})


def _column_target(data: dict[str, Any]) -> Target:
    collection, live = stored.read(Collection, data["collection"]), live_table.from_json(data["live"])
    return stored.read(ColumnTarget, {**data, "collection": collection, "live": live})


def differences(asked: Request, frozen: Request, given: set[str]) -> list[str]:
    """What ``asked`` wants otherwise than the frozen plan, of the parameters that were ``given``: 'name: was, now'."""
    return [
        f"{name} is {getattr(frozen, name)!r} in the plan, now {getattr(asked, name)!r}"
        for name in asdict(asked)
        if name in given and getattr(asked, name) != getattr(frozen, name)
    ]


def check_run_id(run_id: str) -> str:
    """``run_id`` itself. Raises UsageError when it cannot name a directory and a connection."""
    if not RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run_id {run_id!r}: up to 48 letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    return run_id


def generated_run_id(flow: str, at: datetime, tail: str) -> str:
    """A name that a person recognises, that sorts by time, and that ``check_run_id`` takes: FLOW-DATE-TIME-TAIL, where the
    tail has eight characters."""
    return f"{flow[:23].rstrip('-')}-{at:%Y%m%d-%H%M%S}-{tail}"


def table_name(collection: str) -> str:
    """The default table name of a collection: lower case, everything but letters and digits an underscore."""
    name = re.sub(r"[^a-z0-9]+", "_", collection.lower()).strip("_") or "collection"
    return f"c_{name}" if name[0].isdigit() else name


def shadow_name(run_id: str, schema: str, table: str) -> str:
    """A name that is this run's alone and fits into PostgreSQL's 63 bytes."""
    return f"{short(table, 40)}__{suffix(run_id, f'{schema}.{table}')}"


def suffix(run_id: str, table: str) -> str:
    """Eight hex digits that tell this run's tables, keys and indexes from those of any other."""
    return hashlib.sha256(f"{run_id}\0{table}".encode()).hexdigest()[:8]


def short(name: str, limit: int) -> str:
    """``name`` cut to ``limit`` bytes, between characters."""
    return name.encode()[:limit].decode(errors="ignore")


def with_run_id(plan: Plan, run_id: str) -> Plan:
    """The same plan for another run: only the names of its hidden tables differ."""
    targets = tuple(replace(t, shadow=shadow_name(run_id, t.schema, t.table)) for t in plan.targets)
    return replace(plan, run_id=check_run_id(run_id), targets=targets)
