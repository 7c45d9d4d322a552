"""What new vectors of live tables take and cost, by a sample of the texts, and by all of them where they are paid for.
Writes nothing, and gives way to others."""

import time
from collections.abc import Iterator

import numpy as np
from psycopg import sql

from tasks.planning import sample
from tasks.planning.account import cost_of, over_budget
from tasks.planning.layouts import layout_costs
from tasks.planning.planned import Draft, Listing, Look, Planned
from tasks.runs.plan import Plan
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import told
from tasks.stores.postgres.live_table import LiveTable

SAMPLE = 1_000
PAGE = 2_000


def estimate(connection: Connection, draft: Draft, statements: list[str]) -> Planned:
    """The plan as it is shown; ``statements`` are those that change something."""
    plan, model = draft.plan, draft.plan.request.embedder
    assert model
    looks = [look(connection, target.place.live, model) for target in plan.targets]
    cost = cost_of(connection, model, (page for t in plan.targets for page in texts(connection, t.place.live)))
    layouts = [layout for target in plan.targets for layout in layout_costs(connection, target)]
    warnings = [*draft.warnings, *over_budget(cost, plan.request.budget_usd)]
    return Planned(plan, _listing(plan), looks, statements, draft.problems, warnings, cost, layouts=layouts)


def _listing(plan: Plan) -> Listing:
    rows: list[tuple[str | None, ...]] = []
    for target in plan.targets:
        place, table = target.place, f"{target.place.schema}.{target.place.table}"
        count, dims = f"{target.collection.count:,}", str(target.dimensions or "")
        functions = ", ".join(map(told, place.functions)) or None
        layout, metric = plan.request.own["layout"], place.layout.metric
        rows.append((table, place.new_column, layout, count, dims, metric, place.live.text, functions))
    return Listing(("table", "new column", "layout", "rows", "dims", "metric", "text", "function"), rows)


def texts(connection: Connection, live: LiveTable) -> Iterator[list[str]]:
    """The texts of a table, page by page; with a limit some of them, as many as it allows."""
    with connection.transaction(), connection.cursor("vecferry_texts") as cursor:
        cursor.execute(_texts(live, live.limit))
        page = [("",)]
        while page:
            with pace.turn(connection) as turn:
                page = cursor.fetchmany(pace.SHORT if turn.gives_way else PAGE)
            yield [text for (text,) in page if text is not None]


def look(connection: Connection, live: LiveTable, model: str | None) -> Look:
    """What a sample of a table's texts shows; ``model`` is None where it cannot be asked."""
    started = time.perf_counter()
    with pace.turn(connection):
        some = [text for (text,) in connection.execute(_texts(live, SAMPLE)).fetchall()]
        seconds = (time.perf_counter() - started) / max(len(some), 1)
    known = [text for text in some if text is not None]
    size = float(np.mean([len(text.encode()) for text in known])) if known else 0.0
    embedding = sample.embedding_seconds(model, known)
    return Look(len(some), {}, 0, len(some) - len(known), size, seconds + embedding)


def _texts(live: LiveTable, limit: int | None) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {} AS meant LIMIT {}").format(
        sql.SQL(live.document()), live.relation, sql.Literal(limit)
    )
