"""What a run is going to do, fixed before it starts. A run's plan is stored with it and never changes."""

import hashlib
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tasks.errors import UsageError
from tasks.stores.interface import Collection
from tasks.stores.pgvector import Layout, VectorType
from tasks.stores.postgres import Table

SCHEMA = "vecferry"
"""Where the ledger and the tables that nobody reads yet live."""
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
CARRIED = "carried"

Mode = Literal["create", "replace", "sync"]
"""create: the final name is free. replace: a table of ours steps aside. sync: a table of ours gets the difference."""
Nul = Literal["quarantine", "escape"]


@dataclass(frozen=True)
class Request:
    """What the user asked for, as a plan is made from it. Secrets are names."""

    flow: str
    source: dict[str, Any]
    """{"store": name, **options} for tasks.stores.registry."""
    collections: tuple[str, ...] | None
    """None: all of them."""
    database: str
    schema: str
    tables: dict[str, str]
    """Collection → table name, where the default is not wanted."""
    halfvec: bool
    embedder: str | None
    """None: the vectors are carried."""
    batch_rows: int
    limit: int | None
    nul: Nul
    rollback_days: float
    """Days after the cutover in which ``contract`` refuses, unless it is told otherwise."""


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
class Plan:
    """The frozen plan of one run."""

    run_id: str
    request: Request
    targets: tuple[Target, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(data: dict[str, Any]) -> Plan:
    """The plan that ``as_json`` wrote."""
    request = dict(data["request"])
    if request["collections"] is not None:
        request["collections"] = tuple(request["collections"])
    targets = tuple(Target(**{**t, "collection": Collection(**t["collection"])}) for t in data["targets"])
    return Plan(data["run_id"], Request(**request), targets)


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
