"""Plans how live tables get vectors of another space, by reading the catalogue and a sample of texts. Writes nothing."""

from collections.abc import Iterator

import numpy as np
from psycopg import sql

from tasks.base.errors import UsageError
from tasks.checks.change_of_model import read_queries
from tasks.embedders.registry import open_embedder
from tasks.planning import rights
from tasks.planning.layouts import layout_costs
from tasks.planning.planned import Cost, Look, Planned, rows_of, server_problems, server_warnings
from tasks.runs import ledger
from tasks.runs.names import check_run_id, shadow_name
from tasks.runs.plan import Asked, ColumnsRequest, Plan, Target
from tasks.shadows.postgres import search_functions
from tasks.shadows.postgres.live_place import queue_name, trigger_name
from tasks.shadows.postgres.strangers import strangers
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import Column, LiveTable, place, text_columns
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.places import SCHEMA, LiveColumn, LivePlace, SideTable
from tasks.stores.postgres.table import describe

USUAL = ("content", "text", "document", "body", "phrase")
"""Names that a column of text goes by, where a table has several."""
SAMPLE = 1_000
LAYOUTS: dict[str, type[LivePlace]] = {"column": LiveColumn, "side_table": SideTable}


def plan_columns(connection: Connection, request: ColumnsRequest, run_id: str) -> Planned:
    """The plan of a new run. Raises UsageError when a table or a column is not there."""
    assert request.embedder
    space = open_embedder(request.embedder).space
    old_space = open_embedder(request.old_embedder).space if request.old_embedder else None
    problems, warnings = list(server_problems(connection)), list(server_warnings(connection))
    targets = []
    for number, asked in enumerate(request.targets):
        schema, table = place(connection, asked.table)
        live = _live(connection, asked, schema, table, request.limit)
        held = describe(connection, schema, table, live.vectors)
        assert held
        count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(live.identifier)).fetchone()
        assert count
        targets.append(
            Target(
                number=number,
                collection=Collection(f"{schema}.{table}", "", count[0], space.dimensions, held.layout.metric),
                place=LAYOUTS[request.layout](
                    schema=schema,
                    table=table,
                    shadow=shadow_name(run_id, schema, f"{table}.{asked.new_column}"),
                    layout=Layout("vector", space.dimensions, held.layout.metric),
                    live=live,
                    new_column=asked.new_column,
                    function=_function(connection, asked, schema, table),
                ),
                dimensions=space.dimensions,
                space=space.fingerprint,
                old_space=old_space.fingerprint if old_space else None,
                limit=live.limit,
            )
        )
        if old_space and old_space.dimensions != live.layout.dimensions:
            problems.append(
                f"{schema}.{table}.{live.vectors} has {live.layout.dimensions} dimensions, {request.old_embedder} {old_space.dimensions}"
            )
    plan = Plan(check_run_id(run_id), request, tuple(targets))
    looks = [_look(connection, t) for t in targets]
    for target in targets:
        problems += [*_problems(connection, run_id, target)]
        warnings += [*_warnings(connection, target)]
    if request.queries:
        read_queries(request.queries)
    cost = _cost(connection, request, targets)
    if cost and request.budget_usd is not None and cost.dollars > request.budget_usd:
        warnings.append(
            f"about ${cost.dollars:.4f} are needed and budget_usd is ${request.budget_usd:.4f}: the run will stop there"
        )
    layouts = [cost for t in targets for cost in layout_costs(connection, t, rows_of(plan, t))]
    return Planned(plan, looks, [line for t in targets for line in _sql(t)], problems, warnings, cost, layouts=layouts)


def _live(connection: Connection, asked: Asked, schema: str, table: str, limit: int | None) -> LiveTable:
    columns: dict[str, str] = dict(
        connection.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (sql.Identifier(schema, table).as_string(),),
        ).fetchall()
    )
    key = asked.id or _primary_key(connection, schema, table)
    text = asked.text or _only_text(table, columns, key)
    for name in (*key, *text_columns(text), asked.old_column):
        if name not in columns:
            raise UsageError(f"{schema}.{table} has no column {name!r}; it has: {', '.join(columns)}")
    held = describe(connection, schema, table, asked.old_column)
    if held is None:
        raise UsageError(f"{schema}.{table}.{asked.old_column} is {columns[asked.old_column]}, not a vector")
    return LiveTable(
        schema,
        table,
        tuple(Column(name, columns[name]) for name in key),
        text,
        asked.old_column,
        held.layout,
        asked.limit or limit,
    )


def _primary_key(connection: Connection, schema: str, table: str) -> tuple[str, ...]:
    rows = connection.execute(
        "SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) "
        "JOIN pg_attribute a ON a.attnum = k.attnum WHERE a.attrelid = i.indrelid AND i.indisprimary "
        "AND i.indrelid = to_regclass(%s) ORDER BY k.place",
        (sql.Identifier(schema, table).as_string(),),
    ).fetchall()
    if not rows:
        raise UsageError(f"{schema}.{table} has no primary key: name columns that tell its rows apart with `id`")
    return tuple(name for (name,) in rows)


def _only_text(table: str, columns: dict[str, str], key: tuple[str, ...]) -> str:
    texts = [name for name, kind in columns.items() if kind in ("text", "character varying") and name not in key]
    usual = [name for name in texts if name in USUAL]
    if len(texts) == 1 or len(usual) == 1:
        return f"{{{(texts if len(texts) == 1 else usual)[0]}}}"
    raise UsageError(
        f"{table}: which text is embedded? It has {', '.join(texts) or 'no column of text'}; say so with `text`, "
        f"e.g. {{{texts[0] if texts else 'content'}}}"
    )


def _function(connection: Connection, asked: Asked, schema: str, table: str) -> str:
    return asked.function or f"match_{table}"


def _problems(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    yield from strangers(connection, run_id, target)
    yield from search_functions.problems(connection, target)
    live = target.place.live
    unique = connection.execute(
        "SELECT 1 FROM pg_index i WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL "
        "AND ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid "
        "AND a.attnum = ANY(i.indkey) ORDER BY 1) = %s::text[]",
        (live.identifier.as_string(), sorted(column.name for column in live.key)),
    ).fetchone()
    if unique is None:
        yield f"{live.schema}.{live.table}: no unique index on ({', '.join(c.name for c in live.key)}), so rows cannot be told apart"
    for statement in rights.missing(connection, target):
        yield f"this role lacks a right on {live.schema}.{live.table} or beside it: {statement}"
    names = [live.schema, live.table, target.place.new_column, *(c.name for c in live.key), *text_columns(live.text)]
    if bad := [name for name in names if "%" in name]:
        yield f"{bad[0]!r} cannot be named here: it holds a %"


def _warnings(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    live = target.place.live
    firing = connection.execute(
        "SELECT string_agg(tgname, ', ') FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal "
        "AND tgtype & 16 <> 0 AND tgname NOT LIKE 'vecferry%%' AND tgenabled <> 'D'",
        (live.identifier.as_string(),),
    ).fetchone()
    if not target.place.beside and firing and firing[0]:
        yield f"{live.schema}.{live.table}: filling a column fires {firing[0]} for every row; layout=side_table does not"


def _look(connection: Connection, target: Target[LivePlace]) -> Look:
    live = target.place.live
    query = sql.SQL("SELECT octet_length({said}) FROM {table} LIMIT {limit}").format(
        said=sql.SQL(live.said()), table=live.identifier, limit=sql.Literal(SAMPLE)
    )
    sizes = [row[0] for row in connection.execute(query)]
    known = [size for size in sizes if size is not None]
    return Look(len(sizes), {}, 0, len(sizes) - len(known), float(np.mean(known)) if known else 0.0)


def _cost(connection: Connection, request: ColumnsRequest, targets: list[Target[LivePlace]]) -> Cost | None:
    assert request.embedder
    embedder = open_embedder(request.embedder)
    account = embedder.account
    if account is None:
        return None
    texts = sql.SQL(" UNION ").join(
        sql.SQL("(SELECT {} AS said FROM {} {})").format(
            sql.SQL(t.place.live.said()),
            t.place.live.identifier,
            sql.SQL(f"LIMIT {t.place.live.limit}" if t.place.live.limit else ""),
        )
        for t in targets
    )
    kept: sql.Composable = sql.SQL("false")
    if ledger.exists(connection):
        kept = sql.SQL("EXISTS (SELECT 1 FROM vecferry.vector v WHERE v.space = {} AND v.content = {})").format(
            sql.Literal(embedder.space.fingerprint), sql.SQL("sha256(convert_to(said, 'UTF8'))")
        )
    wanted = sql.SQL("SELECT DISTINCT said, {} AS kept FROM ({}) AS t WHERE said IS NOT NULL").format(kept, texts)
    row = connection.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE NOT kept), count(*) FILTER (WHERE kept), "
            "coalesce(sum(octet_length(said)) FILTER (WHERE NOT kept), 0)::bigint FROM ({}) AS w"
        ).format(wanted)
    ).fetchone()
    assert row
    exact, tokens = account.count("") is not None, row[2] // 4
    if exact:
        with connection.transaction(), connection.cursor("vecferry_tokens") as cursor:
            cursor.execute(sql.SQL("SELECT said FROM ({}) AS w WHERE NOT kept").format(wanted))
            tokens = sum(account.count(said) or 0 for (said,) in cursor)
    return Cost(row[0], row[1], tokens, exact, tokens if exact else row[2], account.price)


def _sql(target: Target[LivePlace]) -> Iterator[str]:
    live, side = target.place.live, sql.Identifier(SCHEMA, target.place.shadow).as_string()
    where = live.identifier.as_string()
    yield f"CREATE TABLE {side} (key, content_hash, refused{', embedding' if target.place.beside else ''})"
    if not target.place.beside:
        yield f'ALTER TABLE {where} ADD COLUMN "{target.place.new_column}" {target.place.layout.type}({target.dimensions})'
    yield f"CREATE TABLE {sql.Identifier(SCHEMA, queue_name(target)).as_string()} (seq, id)"
    for kind, when in (("write", "INSERT OR DELETE"), ("update", "UPDATE"), ("truncate", "TRUNCATE")):
        yield f"CREATE TRIGGER {sql.Identifier(trigger_name(target, kind)).as_string()} AFTER {when} ON {where} …"
    on = side if target.place.beside else where
    yield f"CREATE INDEX{'' if target.place.beside else ' CONCURRENTLY'} ON {on} USING hnsw (… {target.place.layout.opclass})"
    for function, when in ((f"{target.place.function}_v2", ""), (str(target.place.function), "  -- at the cutover")):
        yield f"CREATE OR REPLACE FUNCTION {sql.Identifier(target.place.schema, function).as_string()}(…){when}"
