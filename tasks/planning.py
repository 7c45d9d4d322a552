"""Makes a plan from a request by reading the source and the database. Writes nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from sql import statement
from tasks import canonical, ledger
from tasks.embedders.registry import open_embedder
from tasks.errors import UsageError
from tasks.index import index_names
from tasks.plan import CARRIED, SCHEMA, Mode, Plan, Request, Target, check_run_id, shadow_name, table_name
from tasks.stores import pgvector
from tasks.stores.connection import Connection
from tasks.stores.interface import Collection, Source
from tasks.stores.postgres import describe
from tasks.stores.registry import open_source

SAMPLE = 1_000
"""Records a collection that the plan looks at for metadata, missing vectors and document sizes."""
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
class Planned:
    """A plan with what a person wants to know before it is run."""

    plan: Plan
    looks: list[Look]
    sql: list[str]
    problems: list[str] = field(default_factory=list)
    """Each would stop the run."""
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(_rows(self.plan, t) for t in self.plan.targets)

    @property
    def batches(self) -> int:
        return sum(-(-_rows(self.plan, t) // self.plan.request.batch_rows) for t in self.plan.targets)

    @property
    def storage_bytes(self) -> int:
        """Rows, their vectors, the HNSW graph on disk, and the snapshot, which is about as large as the rows."""
        total = 0.0
        for target, look in zip(self.plan.targets, self.looks, strict=True):
            width = (target.dimensions or 0) * (4 if target.type == "vector" else 2)
            graph = (width + 300) if target.layout.index_type else 0
            total += _rows(self.plan, target) * (2 * (look.row_bytes + width) + graph)
        return int(total)

    @property
    def seconds(self) -> float:
        """A rough guess; the first batches tell better."""
        return sum(
            _rows(self.plan, t) * (3 / MOVE_ROWS_PER_SECOND + max(t.dimensions or 0, 100) / 384 / INDEX_ROWS_PER_SECOND)
            for t in self.plan.targets
        )


def make_plan(connection: Connection, request: Request, run_id: str) -> Planned:
    """The plan of a new run. Raises UsageError when the source or a name in the request is not there."""
    source = open_source(request.source)
    collections = _chosen(source, request)
    problems, warnings = list(_server_problems(connection)), list(_server_warnings(connection))
    dimensions = open_embedder(request.embedder).space.dimensions if request.embedder else None
    space = open_embedder(request.embedder).space.fingerprint if request.embedder else CARRIED
    targets = []
    for number, collection in enumerate(collections):
        table = request.tables.get(collection.name, table_name(collection.name))
        target = Target(
            number=number,
            collection=collection,
            schema=request.schema,
            table=table,
            shadow=shadow_name(run_id, request.schema, table),
            mode="create",
            type="halfvec" if request.halfvec else "vector",
            dimensions=dimensions or collection.dimensions,
            space=space,
        )
        mode, problem = _mode(connection, request, target)
        targets.append(Target(**{**vars(target), "mode": mode}))
        problems += [problem] if problem else []
    plan = Plan(check_run_id(run_id), request, tuple(targets))
    looks = [_look(source, c) for c in collections]
    problems += _name_problems(connection, plan)
    warnings += _target_warnings(plan, looks)
    return Planned(plan, looks, list(_sql(plan)), problems, warnings)


def refuse_problems(planned: Planned) -> Plan:
    """The plan itself. Raises UsageError with every problem when there are any."""
    if planned.problems:
        raise UsageError("this plan cannot run: " + "; ".join(planned.problems))
    return planned.plan


def _chosen(source: Source, request: Request) -> list[Collection]:
    if request.collections is not None:
        unknown = sorted(set(request.tables) - set(request.collections))
        found = [source.collection(name) for name in request.collections]
    else:
        found = source.collections()
        unknown = sorted(set(request.tables) - {c.name for c in found})
    if unknown:
        raise UsageError(f"tables names collections that are not migrated: {', '.join(unknown)}")
    if not found:
        raise UsageError("the source has no collections, so there is nothing to migrate")
    return found


def _mode(connection: Connection, request: Request, target: Target) -> tuple[Mode, str | None]:
    there = connection.execute(
        "SELECT c.oid FROM pg_class c WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relname = %s",
        (target.schema, target.table),
    ).fetchone()
    if there is None:
        return "create", None
    row = None
    if ledger.exists(connection):
        row = connection.execute(
            "SELECT source::text, space FROM vecferry.relation WHERE table_schema = %s AND table_name = %s AND role = 'live'",
            (target.schema, target.table),
        ).fetchone()
    held = describe(connection, target.schema, target.table)
    if row is None or held is None:
        return "create", (
            f"{target.name} exists and is not vecferry's: choose another name, -p tables.{target.collection.name}=NAME"
        )
    same_source = orjson.loads(row[0]) == {"source": request.source, "collection": target.collection.name}
    if not same_source:
        return "replace", (
            f"{target.name} holds {orjson.loads(row[0])['collection']!r} of another source: choose another name, "
            f"-p tables.{target.collection.name}=NAME"
        )
    if request.limit:
        return "create", None  # a smoke run stays in its shadow
    return ("sync" if held.layout == target.layout and row[1] == target.space else "replace"), None


def _name_problems(connection: Connection, plan: Plan) -> Iterator[str]:
    for table, count in Counter(t.table for t in plan.targets).items():
        if count > 1:
            names = ", ".join(t.collection.name for t in plan.targets if t.table == table)
            yield f"collections {names} would share the table {table}: name them with -p tables.COLLECTION=NAME"
        if len(table.encode()) > 63:
            yield f"table name {table!r} is longer than PostgreSQL's 63 bytes"
    schema = plan.request.schema
    for name in sorted({schema, *(t.table for t in plan.targets)}):
        if not name or "%" in name:  # psycopg takes a % for a placeholder, in a quoted name too
            yield f"{name!r} cannot name a table or schema here: it must not be empty or hold a %"
    if schema == SCHEMA:
        yield f"schema {SCHEMA!r} is vecferry's own: choose another"
    row = connection.execute(
        "SELECT to_regnamespace(quote_ident(%(s)s)) IS NOT NULL, "
        "CASE WHEN to_regnamespace(quote_ident(%(s)s)) IS NOT NULL THEN "
        "has_schema_privilege(to_regnamespace(quote_ident(%(s)s))::oid, 'CREATE') END",
        {"s": schema},
    ).fetchone()
    assert row
    if not row[0]:
        yield f"there is no schema {schema!r}: CREATE SCHEMA it first"
    elif not row[1]:
        yield f"this role may not create tables in schema {schema!r}: GRANT CREATE ON SCHEMA {schema} TO it"


def _server_problems(connection: Connection) -> Iterator[str]:
    row = connection.execute(
        "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector'), "
        "(SELECT default_version FROM pg_available_extensions WHERE name = 'vector'), "
        "has_database_privilege(current_database(), 'CREATE'), "
        "coalesce((SELECT trusted OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) "
        "          FROM pg_available_extension_versions WHERE name = 'vector' LIMIT 1), false)"
    ).fetchone()
    assert row
    installed, available, may_create, may_install = row
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
        yield f"this role may not create the schema {SCHEMA}: GRANT CREATE ON DATABASE … TO it"


def _server_warnings(connection: Connection) -> Iterator[str]:
    row = connection.execute(
        "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
    ).fetchone()
    version = (row[1] or row[0]) if row else None
    if version and _version(version) < pgvector.ADVISED:
        yield (
            f"pgvector {version}: {'.'.join(map(str, pgvector.ADVISED))} or newer is advised (CVE-2026-3172 in parallel "
            f"index builds up to 0.8.1, vacuum corruption in 0.8.3): ALTER EXTENSION vector UPDATE"
        )


def _target_warnings(plan: Plan, looks: list[Look]) -> Iterator[str]:
    for target, look in zip(plan.targets, looks, strict=True):
        name = target.collection.name
        if target.collection.count == 0:
            yield f"{name} is empty: a migration of 0 rows"
        if look.without_vector:
            yield f"{name}: {look.without_vector} of {look.sampled} sampled records have no vector; they are kept with none"
        if look.without_document and target.space != CARRIED:
            yield f"{name}: {look.without_document} of {look.sampled} sampled records have no document to embed; they get no vector"
        if target.dimensions and target.layout.index_type is None:
            yield f"{name}: {target.dimensions} dimensions are beyond pgvector's index limit of 4000; searches will be exact and slow"
        elif target.layout.index_type == "halfvec" and target.type == "vector":
            yield f"{name}: indexed as halfvec; queries must order by embedding::halfvec({target.dimensions})"
        mixed = sorted(key for key, types in look.metadata.items() if len(types) > 1)
        if mixed:
            yield f"{name}: metadata of mixed types under {', '.join(mixed)}; both survive"
        if target.mode == "replace":
            yield f"{target.name} is ours but laid out otherwise: a new table is built and the old one steps aside"


def _look(source: Source, collection: Collection) -> Look:
    ids = source.ids(collection.name)
    step = max(1, len(ids) // SAMPLE)
    page = source.fetch(collection.name, ids[::step][:SAMPLE].to_pylist())
    types: dict[str, set[str]] = {}
    sizes = []
    for document, metadata in zip(
        page.column("document").to_pylist(), page.column("metadata").to_pylist(), strict=True
    ):
        sizes.append(len(document or "") + len(metadata or "") + 60)
        for key, value in (canonical.loads(metadata) or {}).items():
            types.setdefault(key, set()).add(type(value).__name__)
    return Look(
        page.num_rows,
        {key: sorted(found) for key, found in sorted(types.items())},
        page.column("embedding").null_count,
        page.column("document").null_count,
        float(np.mean(sizes)) if sizes else 0.0,
    )


def _sql(plan: Plan) -> Iterator[str]:
    """The SQL that changes something, as it will be sent."""
    if any(t.mode != "sync" for t in plan.targets):
        yield "CREATE EXTENSION IF NOT EXISTS vector"
    for target in plan.targets:
        if target.mode == "sync":
            yield f"-- {target.name}: rows that differ are merged in place"
            continue
        where: dict[str, Any] = {"schema": SCHEMA, "table": target.shadow}
        names, layout = index_names(plan.run_id, target), target.layout
        yield _one_line(statement("expand_table", **where, type=target.type).as_string())
        if target.dimensions:
            yield _one_line(
                statement("expand_dimensions", **where, type=target.type, dims=target.dimensions).as_string()
            )
        yield f'COPY "{SCHEMA}"."{target.shadow}" FROM STDIN (FORMAT BINARY)'
        yield _one_line(statement("expand_primary_key", **where, constraint=names["key"]).as_string())
        if layout.index_type:
            yield f'CREATE INDEX "{names["hnsw"]}" ON "{SCHEMA}"."{target.shadow}" USING hnsw (({layout.operand}) {layout.opclass})'
        yield _one_line(statement("expand_gin", **where, index=names["gin"]).as_string())
        yield f'ALTER TABLE "{SCHEMA}"."{target.shadow}" SET SCHEMA "{target.schema}"  -- at the cutover'


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(";")


def _rows(plan: Plan, target: Target) -> int:
    return min(target.collection.count, plan.request.limit or target.collection.count)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text)[:3])
