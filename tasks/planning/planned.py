"""What a plan is shown as, and what any plan wants of the server. Writes nothing."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.embedders.interface import Allowed
from tasks.embedders.registry import open_embedder
from tasks.planning.layouts import LayoutCost
from tasks.runs import ledger
from tasks.runs.plan import CollectionsRequest, ColumnsRequest, Plan, Request, Target
from tasks.stores.postgres import pgvector
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import SCHEMA

INDEX_ROWS_PER_SECOND = 1_000
"""A cautious guess for HNSW at 384 dimensions on two cores; it falls with the dimensions. Only for the estimate."""
MOVE_ROWS_PER_SECOND = 5_000


@dataclass(frozen=True)
class Look:
    """What a sample of a collection shows."""

    sampled: int
    metadata: dict[str, list[str]]
    """Key → the types of its values."""
    without_vector: int
    without_document: int
    row_bytes: float


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
    price: float
    """Dollars per million tokens."""

    @property
    def dollars(self) -> float:
        return self.tokens * self.price / 1e6

    @property
    def most_dollars(self) -> float:
        return self.most_tokens * self.price / 1e6


@dataclass(frozen=True)
class Planned:
    """A plan with what a person wants to know before it is run."""

    plan: Plan
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

    @property
    def rows(self) -> int:
        return sum(rows_of(self.plan, t) for t in self.plan.targets)

    @property
    def batches(self) -> int:
        return sum(-(-rows_of(self.plan, t) // self.plan.request.batch_rows) for t in self.plan.targets)

    @property
    def storage_bytes(self) -> int:
        """The snapshot, which is about as large as the rows; the new vectors, where they are kept and where they are
        searched; and the HNSW graph on disk."""
        total = 0.0
        for target, look in zip(self.plan.targets, self.looks, strict=True):
            width = (target.dimensions or 0) * (4 if target.place.layout.type == "vector" else 2)
            graph = (width + 300) if target.place.layout.index_type else 0
            total += rows_of(self.plan, target) * (2 * (look.row_bytes + width) + graph)
        vectors = sum(4 * rows_of(self.plan, t) * (t.dimensions or 0) for t in self.plan.targets)
        chosen = sum(cost.bytes for cost in self.chosen_layouts)
        return int(total + max(0, chosen - vectors))

    @property
    def chosen_layouts(self) -> list[LayoutCost]:
        """What the plan's own layout costs each live table."""
        return [cost for cost in self.layouts if cost.layout in {t.place.kind for t in self.plan.targets}]

    @property
    def seconds(self) -> float:
        """A rough guess; the first batches tell better. A paid model's limits set the least."""
        moved = sum(rows_of(self.plan, t) for t in self.plan.targets) * 3 / MOVE_ROWS_PER_SECOND
        indexed = sum(
            rows_of(self.plan, t) * max(t.dimensions or 0, 100) / 384 / INDEX_ROWS_PER_SECOND for t in self.plan.targets
        )
        return moved + indexed + sum(cost.seconds for cost in self.chosen_layouts) + (self.least_seconds or 0.0)


def make_plan(connection: Connection, request: Request, run_id: str) -> Planned:
    """The plan of a new run. Raises UsageError when the source or a name in the request is not there."""
    if isinstance(request, ColumnsRequest):
        from tasks.planning.live_tables import plan_columns

        return plan_columns(connection, request, run_id)
    from tasks.planning.collections import plan_collections

    assert isinstance(request, CollectionsRequest)
    return plan_collections(connection, request, run_id)


def ask_account(planned: Planned) -> Planned:
    """The plan with the limits of the account that is to pay, which one request of two short texts tells. A key that is
    refused is a problem of the plan; that nobody answers is only said."""
    if planned.cost is None:
        return planned
    account = open_embedder(planned.plan.request.embedder or "").account
    assert account
    try:
        allowed = account.allowed()
        least = account.least_seconds(planned.cost.texts, planned.cost.tokens)
        return replace(planned, allowed=allowed, least_seconds=least)
    except FatalError as error:
        return replace(planned, problems=[*planned.problems, str(error)])
    except TransientError as error:
        said = f"the limits of the account are not known, nor whether its key is good: {error}"
        return replace(planned, warnings=[*planned.warnings, said])


def refuse_problems(planned: Planned) -> Plan:
    """The plan itself. Raises UsageError with every problem when there are any."""
    if planned.problems:
        raise UsageError("this plan cannot run: " + "; ".join(planned.problems))
    return planned.plan


def server_problems(connection: Connection) -> Iterator[str]:
    """What would stop any run."""
    row = connection.execute(
        "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector'), "
        "(SELECT default_version FROM pg_available_extensions WHERE name = 'vector'), "
        "has_database_privilege(current_database(), 'CREATE'), quote_ident(current_database()), quote_ident(current_user), "
        "coalesce((SELECT trusted OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) "
        "          FROM pg_available_extension_versions WHERE name = 'vector' LIMIT 1), false)"
    ).fetchone()
    assert row
    installed, available, may_create, database, role, may_install = row
    if not installed and not available:
        yield "pgvector is not on this server: install its package (postgresql-NN-pgvector), then run again"
    elif not installed and not (may_create and may_install):
        yield (
            "pgvector is not installed in this database and this role may not install it: "
            "have an administrator run CREATE EXTENSION vector"
        )
    version = installed or available
    if version and _version(version) < pgvector.OLDEST:
        yield f"pgvector {version} is too old: {'.'.join(map(str, pgvector.OLDEST))} or newer is needed"
    if not may_create and not ledger.exists(connection):
        yield f"this role may not create the schema {SCHEMA}: GRANT CREATE ON DATABASE {database} TO {role}"


def server_warnings(connection: Connection) -> Iterator[str]:
    """What a person should know of the server."""
    row = connection.execute(
        "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
    ).fetchone()
    version = (row[1] or row[0]) if row else None
    if version and _version(version) < pgvector.ADVISED:
        yield (
            f"pgvector {version}: {'.'.join(map(str, pgvector.ADVISED))} or newer is advised (CVE-2026-3172 in parallel "
            f"index builds up to 0.8.1, vacuum corruption in 0.8.3): ALTER EXTENSION vector UPDATE"
        )


def one_line(text: str) -> str:
    """SQL as it is shown in a plan."""
    return " ".join(text.split()).rstrip(";")


def rows_of(plan: Plan, target: Target) -> int:
    """How many rows of the target are migrated."""
    return target.rows


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text)[:3])
