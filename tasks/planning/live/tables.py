"""Plans how live tables get vectors of another space: what they are called, what is in the way. Writes nothing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from psycopg import sql

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.checks.query_file import read_queries
from tasks.contents.interface import Content
from tasks.contents.text import Text
from tasks.embedders.registry import open_embedder
from tasks.planning import dependents, named_functions, rights, server
from tasks.planning.live import estimate as live_estimate, requirements, sql as live_sql
from tasks.planning.planned import Draft, Planned
from tasks.runs import models
from tasks.runs.names import check_run_id, shadow_name
from tasks.runs.plan import Plan, Request, Target
from tasks.shadows.postgres import column_dependents, dispatcher, renaming, search_times, strangers
from tasks.stores.interface import Collection
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.counting import count
from tasks.stores.postgres.expression import Expression
from tasks.stores.postgres.live_table import Column, LiveTable, columns_of, place, quoted, text_columns
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.places import LiveColumn, LivePlace, SideTable
from tasks.stores.postgres.table import Table, describe

USUAL = ("content", "text", "document", "body", "phrase")
"""Names that a column of text goes by, where a table has several."""
LAYOUTS: dict[str, type[LivePlace]] = {"column": LiveColumn, "side_table": SideTable}
Refine = Callable[[Connection, Request, LivePlace], LivePlace]
"""Makes of the place that a layout stands for what a flow means by it."""


@dataclass(frozen=True)
class Asked:
    """One live table, as the user named it; what is None is read from the catalogue."""

    table: str
    id: tuple[str, ...] | None
    text: str | None
    """A template of columns in braces: ``{title}: {body}``."""
    old_column: str
    new_column: str
    function: str | tuple[str, ...] | None
    function_sql: str | dict[str, str] | None
    limit: int | None
    label: str | None = None
    expression: Expression | None = None
    """What a row's document is, where it is more than ``text``."""
    content: Content = field(default_factory=Text)
    """What of it the model is given."""


def draft(
    connection: Connection, request: Request, run_id: str, refine: Refine = lambda connection, request, place: place
) -> Draft:
    """The plan of a new run, its rows not counted yet. Raises UsageError when a table or a column is not there."""
    return drafted(connection, request, run_id, [stored.read(Asked, named) for named in request.own["targets"]], refine)


def drafted(connection: Connection, request: Request, run_id: str, wanted: Sequence[Asked], refine: Refine) -> Draft:
    """The same for these tables."""
    assert request.embedder
    space = open_embedder(request.embedder).space
    old_space = open_embedder(request.old_embedder).space if request.old_embedder else None
    problems, warnings = list(server.problems(connection)), list(server.warnings(connection))
    targets = []
    for number, asked in enumerate(wanted):
        schema, table = place(connection, asked.table)
        live = _live(connection, asked, schema, table, request.limit)
        usual = LAYOUTS[request.own["layout"]](
            schema=schema,
            table=table,
            shadow=shadow_name(run_id, schema, f"{table}.{asked.new_column}"),
            layout=Layout("vector", space.dimensions, live.layout.metric),
            live=live,
            new_column=asked.new_column,
            function=None,
        )
        target = Target(
            number=number,
            collection=Collection(f"{schema}.{table}", "", 0, space.dimensions, live.layout.metric),
            place=usual,
            dimensions=space.dimensions,
            space=space.fingerprint,
            old_space=old_space.fingerprint if old_space else None,
            limit=live.limit,
            content=asked.content,
        )
        chosen = named_functions.choose(connection, target, asked.function)
        bodies, unused = named_functions.bodies(connection, schema, chosen.functions, asked.function_sql)
        problems += [*chosen.problems, *unused]
        warnings += chosen.warnings
        first, *further = chosen.functions or (None,)
        usual = replace(usual, function=first, further=tuple(further), function_sql=bodies)
        targets.append(replace(target, place=refine(connection, request, usual)))
        if live.layout.dimensions:
            problems += _other_dimensions(targets[-1], live.layout.dimensions, request.old_embedder)
    tables = [f"{target.place.schema}.{target.place.table}" for target in targets]
    problems += [
        (
            f"{table} is named by {counted(tables.count(table), 'target')}, but a run can follow only one of "
            "them: give each a run of its own"
        )
        for table in dict.fromkeys(tables)
        if tables.count(table) > 1
    ]
    for target in targets:
        problems += [*_problems(connection, run_id, target)]
        warnings += [*_warnings(connection, target), *renaming.notes(target, request.embedder)]
    if request.queries:
        read_queries(request.queries)
    return Draft(Plan(check_run_id(run_id), request, tuple(targets)), problems, warnings)


def examine(connection: Connection, draft: Draft) -> Draft:
    """The rows are counted, once and exactly: `status` and the progress of the run are told in them, and a count reads the
    key's index, where the table's statistics may be as old as the table. And nobody else's vectors may be in the way. Others
    are given way."""
    targets, problems = [], list(draft.problems)
    for target in draft.plan.targets:
        rows = count(connection, sql.SQL("{} AS meant").format(target.place.live.relation))
        targets.append(replace(target, collection=replace(target.collection, count=rows)))
        problems += strangers.unwritten(connection, draft.plan.run_id, target)
        if target.place.live.layout.dimensions is None:
            targets[-1], mixed = _measured(connection, targets[-1], draft.plan.request.old_embedder)
            problems += mixed
    return Draft(replace(draft.plan, targets=tuple(targets)), problems, draft.warnings)


def estimate(connection: Connection, draft: Draft) -> Planned:
    """What it will do, take and cost."""
    plan, draft = draft.plan, timed(connection, draft)
    statements = [line for t in plan.targets for line in live_sql.statements(connection, plan.run_id, t, plan.limited)]
    return live_estimate.estimate(connection, draft, statements)


def timed(connection: Connection, draft: Draft) -> Draft:
    """What is told of the time that search functions take, too."""
    problems, warnings = list(draft.problems), list(draft.warnings)
    for target in draft.plan.targets:
        hindering, known = search_times.looked_at(connection, draft.plan.request, target)
        problems += hindering
        warnings += known
    return replace(draft, problems=problems, warnings=warnings)


def _other_dimensions(target: Target[LivePlace], dimensions: int, old_embedder: str | None) -> list[str]:
    expected = open_embedder(old_embedder).space.dimensions if old_embedder else dimensions
    if expected == dimensions:
        return []
    column = f"{target.collection.name}.{target.place.live.vectors}"
    return [f"{column} has {counted(dimensions, 'dimension')}, but {old_embedder} has {expected:,}"]


def _measured(
    connection: Connection, target: Target[LivePlace], old_embedder: str | None
) -> tuple[Target[LivePlace], list[str]]:
    """The target with the dimensions of the old vectors, whose column states none; and what is wrong with them."""
    place, live = target.place, target.place.live
    column = f"{target.collection.name}.{live.vectors}"
    with pace.turn(connection):
        rows = connection.execute(
            sql.SQL(
                "SELECT vector_dims({0}), count(*) FROM {1} WHERE {0} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
            ).format(sql.Identifier(live.old.column), live.old.identifier)
        ).fetchall()
    if len(rows) > 1:
        kinds = ", ".join(f"{counted(count, 'row')} of {dimensions:,}" for dimensions, count in rows)
        usual = rows[0][0]
        return target, [
            f"{column} holds vectors of several dimensions, which no search can compare: {kinds}; make them alike, or take "
            f"the others out: UPDATE {live.identifier.as_string()} SET {quoted(live.vectors)} = NULL WHERE "
            f"vector_dims({quoted(live.vectors)}) <> {usual}"
        ]
    if not rows:
        return target, []
    (dimensions, _) = rows[0]
    measured = replace(live, layout=replace(live.layout, dimensions=dimensions))
    target = replace(target, place=replace(place, live=measured))
    return target, _other_dimensions(target, dimensions, old_embedder)


def _live(connection: Connection, asked: Asked, schema: str, table: str, limit: int | None) -> LiveTable:
    columns = columns_of(connection, schema, table)
    key = asked.id or primary_key(connection, schema, table)
    text = asked.text or _only_text(table, columns, key)
    for name in (*key, *text_columns(text), *([asked.label] if asked.label else [])):
        if name not in columns:
            raise UsageError(f"{schema}.{table} has no column {name!r}; its columns: {', '.join(columns)}")
    described, beside = describe(connection, schema, table, asked.old_column), None
    if asked.old_column not in columns:
        described, beside = _beside(connection, schema, table, asked.old_column, columns, text)
    if described is None:
        raise UsageError(f"{schema}.{table}.{asked.old_column} is {columns[asked.old_column]}, not a vector")
    return LiveTable(
        schema,
        table,
        tuple(Column(name, columns[name]) for name in key),
        text,
        asked.old_column,
        described.layout,
        asked.limit or limit,
        beside,
        asked.label,
        asked.expression,
    )


def _beside(
    connection: Connection, schema: str, table: str, column: str, columns: Iterable[str], text: str
) -> tuple[Table, tuple[str, str]]:
    """Vectors that an earlier run keeps beside the table, and their view. Raises UsageError when there are none, or when
    they are of another text."""
    model = models.at(connection, schema, table, column)
    place = (model.place_schema, model.place_name) if model else None
    described = describe(connection, *place, column) if place else None
    if model is None or place is None or described is None:
        raise UsageError(f"{schema}.{table} has no column {column!r}; its columns: {', '.join(columns)}")
    if set(text_columns(text)) - set(text_columns(model.content)):
        raise UsageError(
            f"{schema}.{table}.{column} holds vectors of {model.content}, so `text` cannot name other columns"
        )
    return replace(described, layout=replace(described.layout, metric=model.metric)), place


def primary_key(connection: Connection, schema: str, table: str) -> tuple[str, ...]:
    """Its columns. Raises UsageError when there is none."""
    rows = connection.execute(
        "SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) "
        "JOIN pg_attribute a ON a.attnum = k.attnum WHERE a.attrelid = i.indrelid AND i.indisprimary "
        "AND k.place <= i.indnkeyatts AND i.indrelid = to_regclass(%s) ORDER BY k.place",
        (sql.Identifier(schema, table).as_string(),),
    ).fetchall()
    if not rows:
        raise UsageError(f"{schema}.{table} has no primary key: name the columns that identify a row with `id`")
    return tuple(name for (name,) in rows)


def _only_text(table: str, columns: dict[str, str], key: tuple[str, ...]) -> str:
    texts = [name for name, kind in columns.items() if kind in ("text", "character varying") and name not in key]
    usual = [name for name in texts if name in USUAL]
    if len(texts) == 1 or len(usual) == 1:
        return f"{{{(texts if len(texts) == 1 else usual)[0]}}}"
    raise UsageError(
        f"{table}: which column is embedded? Its text columns are {', '.join(texts) or 'none'}: name one "
        f"with `text`, e.g. {{{texts[0] if texts else 'content'}}}"
    )


def _problems(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    yield from strangers.owner(connection, run_id, target)
    yield from dispatcher.problems(connection, target)
    yield from renaming.problems(connection, target)
    yield from column_dependents.problems(connection, target)
    yield from requirements.problems(connection, target)
    yield from dependents.problems(connection, target)
    for statement in rights.missing(connection, target):
        yield f"this role lacks a right that {target.collection.name} needs: {statement}"


def _warnings(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    yield from dispatcher.warnings(connection, target)
    yield from column_dependents.told(connection, target) if target.place.allow_dependents else ()
    yield from column_dependents.left(connection, target)
    yield from requirements.warnings(connection, target)
    yield from dependents.warnings(connection, target)
