"""Plans how documents get vectors of another registered model. Writes nothing.

The request's own parameters are ``source_model``, ``target_model``, ``documents``, ``order_by`` and ``roles``; the plan's request has
the models as they are opened.
"""

from collections.abc import Iterator
from dataclasses import replace

from psycopg import sql

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.base.words import typed
from tasks.checks.query_file import read_queries
from tasks.embedders.naming import shown
from tasks.embedders.registry import space_of
from tasks.planning import dependents, rights, server
from tasks.planning.account import cost_of, over_budget, unopened
from tasks.planning.document_choice import Choice, condition
from tasks.planning.live import estimate as live_estimate, requirements, sql as live_sql
from tasks.planning.live.tables import examine
from tasks.planning.models import readers
from tasks.planning.planned import Draft, Listing, Planned
from tasks.planning.shown_sql import group, lines, note
from tasks.runs import registry
from tasks.runs.names import check_run_id, shadow_name
from tasks.runs.plan import Plan, Request, Target
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.live.statements import statements_of
from tasks.shadows.postgres.models import functions
from tasks.shadows.postgres.models.column import vectors_of
from tasks.shadows.postgres.models.indexes import indexes
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import Column, LiveTable
from tasks.stores.postgres.model_tables import ModelTables, Roles, every, find
from tasks.stores.postgres.places import ModelColumn

__all__ = ["draft", "estimate", "examine"]


def draft(connection: Connection, request: Request, run_id: str) -> Draft:
    """The plan of a new run, its rows not counted yet. Raises UsageError when a model, a table or a column is not there."""
    own = request.own
    if not own["target_model"]:
        raise UsageError("no model is given: set target_model, a name that `vecferry models list` has")
    tables = find(connection, stored.read(Roles, own["roles"]))
    new = registry.named(connection, tables, own["target_model"])
    old = (
        registry.named(connection, tables, own["source_model"])
        if own["source_model"]
        else registry.default(connection, tables)
    )
    threshold = old.similarity_threshold if request.similarity_threshold is None else request.similarity_threshold
    request = replace(request, embedder=new.name, old_embedder=_opened(old), similarity_threshold=threshold)
    problems = [*server.problems(connection), *_between(tables, old, new), *unopened(new.name)]
    target = _target(connection, request, run_id, tables, old, new)
    problems += [
        *requirements.problems(connection, target),
        *_rights(connection, target),
        *_unfilled(connection, tables),
    ]
    warnings = [*server.warnings(connection), *requirements.warnings(connection, target)]
    warnings += [
        *dependents.warnings(connection, target),
        *readers.warnings(connection, tables),
        *_others(connection, target),
    ]
    if request.queries:
        read_queries(request.queries)
    return Draft(Plan(check_run_id(run_id), request, (target,)), problems, warnings)


def estimate(connection: Connection, draft: Draft) -> Planned:
    """What it will do, take and cost."""
    plan = draft.plan
    (target,), model = plan.targets, plan.request.embedder
    assert model
    live = target.place.live
    statements = [*_statements(connection, plan.run_id, target, plan.limited)]
    asked = None if any(unopened(model)) else model
    looks = [live_estimate.look(connection, live, asked)]
    cost = cost_of(connection, asked, live_estimate.texts(connection, live)) if asked else None
    warnings = [*draft.warnings, *over_budget(cost, plan.request.budget_usd)]
    return Planned(plan, _listing(plan), looks, statements, draft.problems, warnings, cost)


def _target(
    connection: Connection,
    request: Request,
    run_id: str,
    tables: ModelTables,
    old: RegisteredModel,
    new: RegisteredModel,
) -> Target[ModelColumn]:
    chunks, own = tables.chunks, vectors_of(tables, new)
    place = ModelColumn(
        schema=chunks.schema,
        table=chunks.table,
        shadow=shadow_name(run_id, chunks.schema, f"{chunks.table}.{new.column}"),
        layout=new.layout,
        live=LiveTable(
            schema=chunks.schema,
            table=chunks.table,
            key=(Column(chunks.key, chunks.key_type),),
            text=f"{{{chunks.text}}}",
            vectors=old.column,
            layout=old.layout,
            limit=request.limit,
            apart=vectors_of(tables, old),
            only=condition(connection, tables, stored.read(Choice, request.own["documents"]), request.own["order_by"]),
        ),
        new_column=new.column,
        function=None,
        own=own,
        model=new.number,
        model_name=new.name,
        source=old.number,
        set_id=tables.set_id,
    )
    return Target(
        number=0,
        collection=Collection(str(chunks), "", 0, new.dimensions, new.metric),
        place=place,
        dimensions=new.dimensions,
        space=space_of(new.name).fingerprint,
        old_space=old.space or None,
        limit=request.limit,
    )


def _opened(model: RegisteredModel) -> str | None:
    """The model's name, where it is one that can be asked."""
    return None if model.provider == registry.UNKNOWN else model.name


def _between(tables: ModelTables, old: RegisteredModel, new: RegisteredModel) -> Iterator[str]:
    if old.number == new.number:
        yield f"{new.name} is the source and the target: name two models, source_model and target_model"
    if vectors_of(tables, new).of is None:
        yield (
            f"the vectors of {new.name} stand in {tables.chunks} itself, where the application writes them: choose another target_model"
        )
    if new.ended:
        yield (
            f"{new.name} is retired from search: `vecferry models setup {typed(new.name)}` brings it back, or choose another "
            "target_model"
        )
    made = space_of(new.name)
    if new.space and made.fingerprint != new.space:
        yield (
            f"{new.name} makes vectors of another space than those that are registered: {made.fingerprint}, and {new.space}: set up "
            "the model again under a name with its revision or options"
        )


def _rights(connection: Connection, target: Target[ModelColumn]) -> Iterator[str]:
    for one in rights.missing(connection, target):
        yield f"this role lacks a right that {target.collection.name} needs: {one}"


def _unfilled(connection: Connection, tables: ModelTables) -> Iterator[str]:
    """Columns of the table of vectors that an INSERT has to name, and ours does not."""
    embeddings = tables.embeddings
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attnotnull "
        "AND NOT atthasdef AND attidentity = '' AND attname <> ALL(%s) ORDER BY attnum",
        (embeddings.identifier.as_string(), [embeddings.chunk, embeddings.model]),
    ).fetchall()
    for (name,) in rows:
        column = sql.Identifier(name).as_string()
        yield (
            f"{embeddings}.{name} is NOT NULL and has no default, so a row with another model's vector cannot be added: ALTER TABLE "
            f"{embeddings.identifier.as_string()} ALTER COLUMN {column} DROP NOT NULL, or SET DEFAULT"
        )


def _others(connection: Connection, target: Target[ModelColumn]) -> Iterator[str]:
    """Runs that bring in vectors of the same model."""
    rows = connection.execute(
        "SELECT run_id FROM vecferry.relation WHERE (source ->> 'model')::bigint = %s AND table_name <> %s ORDER BY run_id",
        (target.place.model, target.place.shadow),
    ).fetchall()
    for (run_id,) in rows:
        yield (
            f"run {run_id} follows documents by {shown(target.place.model_name)} too: once this run is verified, `vecferry rollback "
            f"{run_id}` ends that, and takes no vector that this run has"
        )


def _listing(plan: Plan) -> Listing:
    (target,) = plan.targets
    place = target.place
    rows: list[tuple[str | None, ...]] = [
        (
            f"{place.schema}.{place.table}",
            shown(plan.request.old_embedder) if plan.request.old_embedder else place.live.vectors,
            shown(place.model_name),
            f"{place.vectors.table}.{place.vectors.column}",
            f"{target.collection.count:,}",
            str(target.dimensions),
            "some" if place.live.only else "all",
        )
    ]
    return Listing(("table", "from", "to", "column", "rows", "dims", "documents"), rows)


def _statements(connection: Connection, run_id: str, target: Target[ModelColumn], limited: bool) -> Iterator[str]:
    tables = next(one for one in every(connection) if one.set_id == target.place.set_id)
    models = registry.listed(connection, tables)
    model = next(m for m in models if m.number == target.place.model)
    yield from live_sql.filling(connection, run_id, target)
    built = [one for change in indexes(connection, tables, [model]) for one in change.statements]
    if built:
        yield from group(target.name, "once all rows are loaded", lines(*built))
    yield from live_sql.following(target)
    if not limited:
        switched = note(f"the registry of models has {model.shown} as the default; these are remade from it")
        remade = [live_sql.chooses(tables.schema, name) for name in functions.names(models)]
        yield from group(target.name, "at the cutover", [switched, *remade])
        if target.old_space:
            yield from group(
                target.name, "while catching up after the cutover", lines(statements_of(target.place).update_old)
            )
