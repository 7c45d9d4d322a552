"""What a plan says of how long search functions take, before anything is paid."""

import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.shadows.postgres import probe
from tasks.stores.postgres.connection import Connection

RESULT = "RETURNS TABLE (id int, similarity float)"
SEARCH = "SELECT d.id, 1 - (d.embedding <=> query) FROM docs d {where} ORDER BY d.embedding <=> query {limit}"


@pytest.fixture
def docs(connection: Connection) -> Connection:
    connection.execute("CREATE TABLE docs (id int PRIMARY KEY, content text, embedding vector(4))")
    return connection


def filled(connection: Connection, rows: int) -> None:
    connection.execute(
        "INSERT INTO docs SELECT n, 'row ' || n, ARRAY[cos(n), sin(n), cos(2 * n), sin(2 * n)]::vector(4) "
        f"FROM generate_series(1, {rows}) n"
    )


def planned(connection: Connection, **target: str) -> Planned:
    parameters = {"targets": [{"table": "docs", **target}], "embedder": "hashing/1536"}
    return make_plan(connection, parse(Text384To1536, parameters).request(), "plan")


@pytest.mark.parametrize(
    ("arguments", "where"),
    [("query vector(4)", ""), ("query vector(4), threshold float", "WHERE 1 - (d.embedding <=> query) > threshold")],
    ids=["no threshold", "a threshold"],
)
def test_a_function_that_compares_too_many_rows_is_refused(docs: Connection, arguments: str, where: str) -> None:
    """A function that has no LIMIT, and whose callers' LIMIT is not for PostgreSQL to see, compares a query with every row, and by wide
    vectors that takes longer than a switch: the plan says so, with the way on. With a LIMIT, or a body for the new vectors, it can be
    switched, and so it can where it is put into the queries of its callers."""
    filled(docs, 60_000)
    create = f"CREATE OR REPLACE FUNCTION match_docs({arguments}) {RESULT} LANGUAGE sql AS $$ {{}} $$"
    docs.execute(create.format(SEARCH.format(where=where, limit="")))  # type: ignore[call-overload]
    (problem,) = planned(docs).problems
    assert problem.startswith(
        "public.match_docs returns 60,000 rows: to compare a query with as many vectors of 1,536 dimensions takes 240 ms"
    )
    assert "a LIMIT" in problem
    assert "`function_sql`" in problem
    body = SEARCH.format(where=where, limit="LIMIT 10").replace("embedding", "embedding_1536")
    assert planned(docs, function_sql=body).problems == []
    docs.execute(create.format(SEARCH.format(where=where, limit="LIMIT 10")))  # type: ignore[call-overload]
    assert planned(docs).problems == []
    docs.execute(create.format(SEARCH.format(where=where, limit="")).replace("sql AS", "sql STABLE AS"))  # type: ignore[call-overload]
    assert planned(docs).problems == []


def test_a_slow_function_is_refused(docs: Connection) -> None:
    """What takes longer by the old vectors than a switch may last is told with its time, and nothing that it writes is kept."""
    filled(docs, 9)
    docs.execute(
        f"CREATE FUNCTION match_docs(query vector(4)) {RESULT} LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.21); RETURN QUERY "
        f"{SEARCH.format(where='', limit='LIMIT 5')}; END $$"
    )
    (problem,) = planned(docs).problems
    assert problem.startswith("public.match_docs takes 21")
    assert "make it faster" in problem


def test_a_function_that_writes_is_not_asked(docs: Connection) -> None:
    """A function that notes who searches is called by no plan that would keep it."""
    filled(docs, 9)
    docs.execute("CREATE TABLE searches (at timestamptz); CREATE SEQUENCE searched")
    docs.execute(
        f"CREATE FUNCTION match_docs(query vector(4)) {RESULT} LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('searched'); "
        f"INSERT INTO searches VALUES (now()); RETURN QUERY {SEARCH.format(where='', limit='LIMIT 5')}; END $$"
    )
    assert planned(docs).problems == []
    assert docs.execute("SELECT is_called, (SELECT count(*) FROM searches) FROM searched").fetchone() == (False, 0)


def test_a_function_that_is_slow_enough_for_a_busy_server_is_told(docs: Connection) -> None:
    """What fits into a switch on a quiet server, and only there, is said before anything is paid."""
    filled(docs, 20_000)
    create = f"CREATE FUNCTION match_docs(query vector(4)) {RESULT} LANGUAGE sql AS $$ {SEARCH.format(where='', limit='')} $$"
    docs.execute(create)  # type: ignore[call-overload]
    plan = planned(docs)
    assert plan.problems == []
    (line,) = [w for w in plan.warnings if "LIMIT" in w]
    assert line.startswith("public.match_docs returns 20,000 rows")
    assert "takes 80 ms and more" in line
    assert "a busy server" in line


def test_an_order_that_only_callers_have_is_told(docs: Connection) -> None:
    """Callers may order by index what a function returns that has no order itself, and no longer once it is switched: the plan says so.
    Of a function that orders its rows, or has a LIMIT, it says nothing, since callers that end its search early go on to do so."""
    filled(docs, probe.COMPARED + 1)
    create = f"CREATE OR REPLACE FUNCTION match_docs(query vector(4)) {RESULT} LANGUAGE sql STABLE AS $$ {{}} $$"
    bare = "SELECT d.id, d.embedding <=> query FROM docs d WHERE d.content <> ''"
    docs.execute(create.format(bare))  # type: ignore[call-overload]
    (line,) = [w for w in planned(docs).warnings if "ORDER BY" in w]
    assert line.startswith("public.match_docs has no ORDER BY")
    assert "compares all rows, here 51 rows" in line
    for own in (f"{bare} ORDER BY 2", f"{bare} LIMIT 100", f"WITH d AS MATERIALIZED ({bare}) SELECT * FROM d"):
        docs.execute(create.format(own))  # type: ignore[call-overload]
        assert not [w for w in planned(docs).warnings if "LIMIT" in w or "ORDER BY" in w]
