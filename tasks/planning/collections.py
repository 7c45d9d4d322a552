"""Plans how collections of a store become tables, by reading the source and the database. Writes nothing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import orjson

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.embedders.registry import open_embedder
from tasks.planning import collection_estimate, server, table_sql
from tasks.planning.metrics import option, settle
from tasks.planning.planned import Draft, Planned
from tasks.runs import ledger
from tasks.runs.names import check_run_id, shadow_name, table_name
from tasks.runs.plan import CARRIED, Plan, Request, Target
from tasks.stores.interface import Collection, Metric, Selected, Source
from tasks.stores.postgres.connection import Connection, encoding
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.places import SCHEMA, NewTable, ReplacedTable, SyncedTable, TablePlace
from tasks.stores.postgres.table import describe
from tasks.stores.registry import open_source


@dataclass(frozen=True)
class Asked:
    """The flow's own parameters."""

    collections: tuple[str, ...] | None
    """None: all of them."""
    schema: str
    tables: dict[str, str]
    """Collection → table name, where the default is not wanted."""
    halfvec: bool
    metrics: dict[str, Metric] = field(default_factory=dict)
    """Collection → metric, where the source does not tell."""
    nul: Literal["quarantine", "escape"] = "quarantine"


def draft(connection: Connection, request: Request, run_id: str) -> Draft:
    """The plan of a new run. Raises UsageError when the source or a name in the request is not there."""
    asked, source = stored.read(Asked, request.own), _source(request)
    settled = settle(source, _chosen(source, asked), asked.metrics, request.embedder)
    problems = [*server.problems(connection), *settled.problems]
    dimensions = open_embedder(request.embedder).space.dimensions if request.embedder else None
    space = open_embedder(request.embedder).space.fingerprint if request.embedder else CARRIED
    targets = []
    for number, collection in enumerate(settled.collections):
        table = asked.tables.get(collection.name, table_name(collection.name))
        width = dimensions or collection.dimensions
        free = NewTable(
            schema=asked.schema,
            table=table,
            shadow=shadow_name(run_id, asked.schema, table),
            layout=Layout("halfvec" if asked.halfvec else "vector", width, collection.metric),
            nul=asked.nul,
        )
        target: Target[TablePlace] = Target(number, collection, free, width, space, limit=request.limit)
        kind, problem = _kind(connection, request, target)
        targets.append(replace(target, place=kind(**{f.name: getattr(free, f.name) for f in fields(free)})))
        problems += [problem] if problem else []
    plan = Plan(check_run_id(run_id), request, tuple(targets))
    problems += _name_problems(connection, plan, asked.schema)
    return Draft(plan, problems, [*server.warnings(connection), *_letters(connection), *settled.warnings])


def examine(connection: Connection, draft: Draft) -> Draft:
    """Stores know how many records they hold."""
    return draft


def estimate(connection: Connection, draft: Draft) -> Planned:
    """What it will do, take and cost."""
    source = _source(draft.plan.request, fresh=False)
    return collection_estimate.estimate(connection, draft, source, list(table_sql.statements(connection, draft.plan)))


def _letters(connection: Connection) -> Iterator[str]:
    if (name := encoding(connection)) not in ("UTF8", "SQL_ASCII"):
        yield (
            f"the encoding of the database is {name}: a batch fails if it has a character that {name} lacks; a database whose "
            "encoding is UTF8 takes them all"
        )


def _source(request: Request, fresh: bool = True) -> Source:
    names = stored.read(Asked, request.own).collections
    return open_source(request.source, None if names is None else [Selected(n) for n in names], fresh=fresh)


def _chosen(source: Source, asked: Asked) -> list[Collection]:
    known = source.names() if asked.collections is None else asked.collections
    chosen = [source.records(name).describe() for name in known]
    for parameter, names in (("tables", asked.tables), ("metrics", asked.metrics)):
        if unknown := sorted(set(names) - set(known)):
            raise UsageError(f"{parameter} names collections that are not migrated: {', '.join(unknown)}")
    if not chosen:
        raise UsageError("the source has no collections, so there is nothing to migrate")
    return chosen


def _kind(connection: Connection, request: Request, target: Target[TablePlace]) -> tuple[type[TablePlace], str | None]:
    """What the place is by what has the final name now, and what stands in the way."""
    there = connection.execute(
        "SELECT c.oid FROM pg_class c WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relname = %s",
        (target.place.schema, target.place.table),
    ).fetchone()
    if there is None:
        return NewTable, None
    row = None
    if ledger.exists(connection):
        row = connection.execute(
            "SELECT source::text, space FROM vecferry.relation WHERE table_schema = %s AND table_name = %s AND role = 'live'",
            (target.place.schema, target.place.table),
        ).fetchone()
    present = describe(connection, target.place.schema, target.place.table)
    if row is None or present is None:
        return NewTable, (
            f"{target.name} exists and is not vecferry's: choose another name, {option('tables', target.collection.name, 'NAME')}"
        )
    same_source = orjson.loads(row[0]) == {"source": request.source, "collection": target.collection.name}
    if not same_source:
        return ReplacedTable, (
            f"{target.name} holds collection {orjson.loads(row[0])['collection']!r} of another source: choose "
            f"another name, {option('tables', target.collection.name, 'NAME')}"
        )
    if request.limit:
        return NewTable, None  # a smoke run stays in its shadow
    alike = present.layout == target.place.layout and row[1] == target.space
    return (SyncedTable if alike else ReplacedTable), None


def _name_problems(connection: Connection, plan: Plan, schema: str) -> Iterator[str]:
    for table, count in Counter(t.place.table for t in plan.targets).items():
        if count > 1:
            names = ", ".join(t.collection.name for t in plan.targets if t.place.table == table)
            yield f"collections {names} would share the table {table}: name them with -p tables.COLLECTION=NAME"
        if len(table.encode()) > 63:
            yield f"table name {table!r} is longer than PostgreSQL's 63 bytes"
    for name in sorted({schema, *(t.place.table for t in plan.targets)}):
        if not name or "%" in name:  # psycopg takes a % for a placeholder, in a quoted name too
            yield f"{name!r} cannot name a table or schema here: it is empty or contains a %"
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
        yield f"there is no schema {schema!r}: create it first, CREATE SCHEMA {schema}"
    elif not row[1]:
        yield f"this role may not create tables in schema {schema!r}: GRANT CREATE ON SCHEMA {schema} TO it"
