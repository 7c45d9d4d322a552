"""The plan of a live table: what either layout costs, and what the account allows, before anything is written."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.embedders.interface import Allowed
from tasks.embedders.openai.limits import least_seconds
from tasks.planning.account import ask_account
from tasks.planning.layouts import LayoutCost
from tasks.planning.live.estimate import texts
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_records import LiveTables
from tests.helpers.live import OLD, make_table, text_of
from tests.helpers.openai_server import OpenAIServer, openai_server

ROWS = 200


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with openai_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        yield server


def plan(connection: Connection, **parameters: Any) -> Planned:
    form = parse(Text384To1536, {"targets": [{"table": "docs", "text": "content"}], **parameters})
    return make_plan(connection, form.request(), "planned")


def test_time_at_the_limits_of_the_account(connection: Connection, server: OpenAIServer) -> None:
    """One request of two short texts tells the limits; the least time is what the tighter of them lets through."""
    make_table(connection, ROWS)
    server.limit(requests=500, tokens=1_000)
    planned = ask_account(plan(connection))
    assert planned.allowed == Allowed(500, 1_000)
    assert planned.cost
    assert planned.least_seconds == pytest.approx(60 * (planned.cost.tokens / 1_000 - 1))
    assert planned.seconds > planned.least_seconds
    assert [len(call.inputs) for call in server.answered()] == [2]


def test_requests_may_be_what_is_short() -> None:
    """A minute's worth is there at once; after it, requests of 2,048 texts come at the pace of their limit."""
    assert least_seconds(Allowed(10, 1e9), texts=10 * 2048, tokens=1) == 0
    assert least_seconds(Allowed(10, 1e9), texts=30 * 2048, tokens=1) == 120
    assert least_seconds(Allowed(10, 1e9), texts=1, tokens=30 * 300_000) == 120
    assert least_seconds(Allowed(None, None), 10**9, 10**12) == 0


def test_a_key_that_is_refused_is_a_problem_of_the_plan(
    connection: Connection, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key is told before anything is written; a server that is not there is only noted, and not waited for."""
    make_table(connection, 5)
    server.plant(status=401, code="invalid_api_key")
    assert "401" in ask_account(plan(connection)).problems[0]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    asked = ask_account(plan(connection))
    assert asked.problems == []
    assert "could be checked" in asked.warnings[-1]


@pytest.mark.parametrize("role", ["embedder", "old_embedder"])
def test_a_budget_needs_prices(connection: Connection, server: OpenAIServer, role: str) -> None:
    """That of a model whose price nobody knows would hold nothing: a problem of the plan, which says what to write, and before any
    request."""
    make_table(connection, 5)
    unknown = f"openai/nobody?dimensions={OLD.dimensions if role == 'old_embedder' else 1536}"
    assert "price is not known" in plan(connection, **{role: unknown}, budget_usd=1).problems[-1]
    assert plan(connection, **{role: unknown}).problems == []
    assert plan(connection, **{role: f"{unknown}&price=0.1"}, budget_usd=1).problems == []
    assert server.calls == []


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_both_layouts_tell_what_they_rewrite(connection: Connection, layout: str) -> None:
    """The chosen layout comes first; a column rewrites every row and its entry in every index there is, a table beside it
    none, and the bytes follow."""
    make_table(connection, ROWS)

    def costs() -> dict[str, LayoutCost]:
        planned = plan(connection, embedder="hashing/1536", layout=layout)
        assert planned.layouts[0].layout == layout
        assert planned.chosen_layouts == [planned.layouts[0]]
        return {cost.layout: cost for cost in planned.layouts}

    before = costs()
    assert (before["column"].rows, before["side_table"].rows) == (ROWS, 0)
    assert [(i.name, i.method) for i in before["column"].indexes] == [("docs_old", "hnsw"), ("docs_pkey", "btree")]
    assert before["column"].bytes > before["side_table"].bytes
    connection.execute("CREATE INDEX again ON docs USING hnsw (embedding vector_cosine_ops)")
    after = costs()
    assert {i.name for i in after["column"].indexes} == {"again", "docs_old", "docs_pkey"}
    assert after["column"].bytes > before["column"].bytes
    assert after["side_table"] == before["side_table"]


def test_a_plan_gives_way_to_others(connection: Connection, database: str, server: OpenAIServer) -> None:
    """While another session works in the database, the texts are read in short pieces with rests between them; each
    different text is counted once, in whichever piece it comes."""
    make_table(connection, 5)
    connection.execute(
        "INSERT INTO docs (id, content) SELECT n, repeat('long ', 200) || n % 3000 FROM generate_series(6, 4005) n"
    )
    alone = plan(connection)
    assert alone.cost
    assert alone.cost.texts == 5 + 3000
    live = alone.plan.targets[0].place.live
    assert max(map(len, texts(connection, live))) > pace.SHORT
    with psycopg.connect(database, application_name="app", autocommit=True) as app, pace.giving_way(database, 0.5):
        app.execute("SELECT 1")
        assert plan(connection).cost == alone.cost
        assert pace.rested(connection) > 0
        assert max(map(len, texts(connection, live))) == pace.SHORT


def test_time_follows_from_a_sample(connection: Connection) -> None:
    """Twice the rows take twice the time that one of the sample took, to be read and to be embedded."""
    make_table(connection, ROWS)
    planned = plan(connection, embedder="hashing/1536")
    assert planned.looks[0].row_seconds > 0
    slow = replace(planned, looks=[replace(planned.looks[0], row_seconds=1.0)])
    assert slow.seconds >= ROWS


def test_the_old_vectors_are_searched_as_any_source(connection: Connection) -> None:
    """The nearest rows by the vectors there are, under the rows' names."""
    make_table(connection, 20)
    live = plan(connection, embedder="hashing/1536").plan.targets[0].place.live
    source = LiveTables(lambda: nullcontext(connection), {"public.docs": live})
    (hits,) = source.records("public.docs").search(OLD.embed([text_of(7)]).whole, 3)
    assert (len(hits.ids), hits.ids[0]) == (3, "7")
    assert hits.distances[0] == pytest.approx(0, abs=1e-6)


def test_a_smoke_run_is_planned_as_one(connection: Connection) -> None:
    """A target's own limit is what is counted, in rows and in layouts."""
    make_table(connection, ROWS)
    planned = plan(connection, embedder="hashing/1536", targets=[{"table": "docs", "text": "content", "limit": 50}])
    whole = plan(connection, embedder="hashing/1536")
    assert (planned.rows, whole.rows) == (50, ROWS)
    assert planned.storage_bytes < whole.storage_bytes
    assert planned.layouts[0].bytes < whole.layouts[0].bytes
