"""Search functions in SQL that PostgreSQL puts into the queries of their callers: a LIMIT of these ends a search by index, and goes on to
do so after the switch."""

from typing import Any

import pytest
from psycopg import errors

from tasks.cutover import contract, cutover, rollback
from tasks.shadows.postgres import choice
from tasks.stores.postgres.connection import Connection
from tests.helpers.live import text_of
from tests.helpers.sampling import sampled
from tests.helpers.search_definitions import RESULT
from tests.helpers.searched import FUNCTION, NEW, OLD, fill, literal, migrated

PLAIN = "no LIMIT"
FOUND = 20
"""Rows that a search by index comes upon."""
CREATE = "CREATE FUNCTION app.match_docs({arguments}) {result} LANGUAGE sql STABLE {options} AS $$ {select} $$"
SELECT = (
    "SELECT d.id, d.content, 1 - (d.embedding <=> query) FROM app.docs d {where} ORDER BY d.embedding <=> query {limit}"
)
NO_LIMIT = CREATE.format(
    arguments="query vector(16)", result=RESULT, options="", select=SELECT.format(where="", limit="")
)
DEFINITIONS = {
    PLAIN: NO_LIMIT,
    "a threshold": CREATE.format(
        arguments="query vector(16), threshold float DEFAULT -1",
        result=RESULT,
        options="",
        select=SELECT.format(where="WHERE 1 - (d.embedding <=> query) > threshold", limit=""),
    ),
    "a LIMIT above that of its callers": CREATE.format(
        arguments="query vector(16)",
        result=RESULT,
        options="PARALLEL SAFE",
        select=SELECT.format(where="", limit="LIMIT 500"),
    ),
    "casts to its dimensions": NO_LIMIT.replace("<=> query", "<=> query::vector(16)"),
    "its rows, and the query last": CREATE.format(
        arguments="of_kind int, query vector(16)",
        result="RETURNS SETOF app.docs",
        options="",
        select="SELECT * FROM app.docs d WHERE of_kind = 0 ORDER BY d.embedding <=> query",
    ),
    "parsed": NO_LIMIT.replace("AS $$", "BEGIN ATOMIC").replace(" $$", "; END"),
}
CALLS = {"its rows, and the query last": "app.match_docs(0, {q})"}


@pytest.fixture
def docs(connection: Connection) -> Connection:
    """A table that is searched exactly where all rows are asked for, and by index, which finds fewer, where some are."""
    fill(connection, "app", OLD)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO app.docs VALUES (%s, %s, 'user 1', true, '{}', %s)",
            [(n, text_of(n), literal(OLD, n)) for n in range(40, 600)],
        )
    connection.execute("CREATE INDEX ON app.docs USING hnsw (embedding vector_cosine_ops); ANALYZE app.docs")
    for setting in (f"hnsw.ef_search = {FOUND}", "random_page_cost = 1"):
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {setting}")
        connection.execute(f"SET {setting}")
    return connection


def indexed(connection: Connection, call: str) -> bool:
    """Whether 50 rows of a call are searched by an index."""
    plan = connection.execute(f"EXPLAIN SELECT * FROM {call} LIMIT 50").fetchall()  # type: ignore[call-overload]
    return "hnsw" in str(plan) or "embedding_idx" in str(plan)


def rows(connection: Connection, call: str) -> list[Any]:
    return connection.execute(f"SELECT id FROM {call} LIMIT 50").fetchall()  # type: ignore[call-overload]


@pytest.mark.parametrize("name", sampled(DEFINITIONS, PLAIN))
def test_a_limit_of_callers_ends_a_search_as_it_did(docs: Connection, name: str) -> None:
    """Old queries are answered by the same index before the switch, after it and after a rollback, new ones by the new index, whether
    they are constants or parameters; other dimensions get an error that says which are served."""
    docs.execute(DEFINITIONS[name])  # type: ignore[call-overload]
    call = CALLS.get(name, "app.match_docs({q})")
    old, new, other = (call.format(q=f"'{q}'::vector") for q in (literal(OLD, 7), literal(NEW, 7), [1, 2]))
    definition, before = docs.execute(FUNCTION).fetchall(), rows(docs, old)
    assert indexed(docs, old)
    assert len(before) == FOUND
    run = migrated(docs)
    cutover(run)
    docs.execute("ANALYZE app.docs")
    assert rows(docs, old) == before
    for query in (old, new):
        assert indexed(docs, query)
        assert rows(docs, query)[0] == (7,)
    for query in (other, other.replace("match_docs", "match_docs_v2")):
        with pytest.raises(errors.DataError, match="serves queries of 16 and 24 dimensions, not 2"):
            rows(docs, query)
    docs.execute("SET plan_cache_mode = force_generic_plan")
    docs.execute(f"PREPARE asked (vector) AS SELECT id FROM {call.format(q='$1')} LIMIT 50")  # type: ignore[call-overload]
    assert docs.execute(f"EXECUTE asked ('{literal(OLD, 7)}')").fetchall() == before
    assert docs.execute(f"EXECUTE asked ('{literal(NEW, 7)}')").fetchone() == (7,)
    rollback(run)
    assert docs.execute(FUNCTION).fetchall() == definition
    assert rows(docs, old) == before
    assert docs.execute(f"EXECUTE asked ('{literal(OLD, 7)}')").fetchall() == before


@pytest.mark.parametrize("name", sampled([PLAIN, "its rows, and the query last"], PLAIN))
def test_new_vectors_alone_are_searched_by_index_too(docs: Connection, name: str) -> None:
    """NULL, which has no dimensions, is answered by the function of the old vectors until they are gone; once they are, a LIMIT of callers
    ends a search among the new ones, and others are refused."""
    docs.execute(DEFINITIONS[name])  # type: ignore[call-overload]
    call = CALLS.get(name, "app.match_docs({q})")
    null = f"SELECT count(*) FROM {call.format(q='NULL')}"
    old, new = (call.format(q=f"'{literal(model, 7)}'::vector") for model in (OLD, NEW))
    before, run = docs.execute(null).fetchone(), migrated(docs)  # type: ignore[call-overload]
    cutover(run)
    assert docs.execute(null).fetchone() == before == (600,)  # type: ignore[call-overload]
    contract(run, 0)
    docs.execute("ANALYZE app.docs")
    assert indexed(docs, new)
    assert rows(docs, new)[0] == (7,)
    with pytest.raises(errors.DataError, match="serves queries of 24 dimensions, not 16"):
        rows(docs, old)


@pytest.mark.parametrize("name", sampled([PLAIN, "its rows, and the query last"], "its rows, and the query last"))
def test_what_is_made_before_postgresql_17(connection: Connection, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of what is written otherwise for earlier versions the rows are the same, those of a table that has got one more column since too."""
    monkeypatch.setattr(choice, "ALIKE", 1_000_000)
    fill(connection, "app", OLD)
    connection.execute(DEFINITIONS[name])  # type: ignore[call-overload]
    call = f"SELECT * FROM {CALLS.get(name, 'app.match_docs({q})')}"
    old, new, other = (call.format(q=f"'{q}'::vector") for q in (literal(OLD, 7), literal(NEW, 7), [1, 2]))
    before, run = rows(connection, old.partition("FROM ")[2]), migrated(connection, layout="side_table")
    cutover(run)
    connection.execute("ALTER TABLE app.docs ADD note text DEFAULT 'new'")
    assert rows(connection, old.partition("FROM ")[2]) == before
    first = connection.execute(new).fetchone()  # type: ignore[call-overload]
    assert first
    assert first[0] == 7
    assert (first[-1] == "new") == (name != PLAIN)
    with pytest.raises(errors.DataError, match="serves queries of 16 and 24 dimensions, not 2"):
        connection.execute(other)  # type: ignore[call-overload]
