"""The SQL that users of a migrated table call."""

import numpy as np
import pytest
from psycopg import errors, sql

from sql import statement
from tasks.runs import ledger_versions
from tasks.shadows.postgres import extension
from tasks.stores.interface import Collection, Metric, vectors
from tasks.stores.postgres.connection import Connection
from tests.helpers.data import records_of
from tests.helpers.postgres_store import PostgresStore


def _text(vector: np.ndarray) -> str:
    return "[" + ",".join(map(str, vector.tolist())) + "]"


@pytest.fixture
def store(connection: Connection) -> PostgresStore:
    ledger_versions.ensure(connection)
    extension.prepare(connection)
    return PostgresStore(connection)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("dimensions", [8, 2001])
def test_finds_what_the_store_finds(store: PostgresStore, metric: Metric, dimensions: int) -> None:
    """By the table's own metric and through its own index, halfvec ones included."""
    batch = records_of(200, dimensions)
    store.create(Collection("docs", "", 0, dimensions, metric))
    store.write("docs", batch)
    probe = vectors(batch)[17]
    query = "SELECT id, similarity FROM vecferry.find_similar_documents('docs', %s::text::vector, 5)"
    rows = store.connection.execute(query, (_text(probe),)).fetchall()
    assert [r[0] for r in rows] == store.records("docs").search(probe[None], 5)[0].ids
    assert rows[0][0] == "row-0000017"
    assert rows[0][1] == pytest.approx(1.0, abs=2e-2)
    assert [r[1] for r in rows] == sorted((r[1] for r in rows), reverse=True)


def test_a_rare_filter_still_finds_enough(store: PostgresStore) -> None:
    """A filter that passes 1 % of the rows yields all ten asked for, although the index alone would stop after 40."""
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(3000))
    store.connection.execute("UPDATE docs SET metadata = jsonb_build_object('rare', right(id, 2) = '07')")
    store.connection.execute("ANALYZE docs")
    store.connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    probe = _text(vectors(records_of(1, start=9_999))[0])
    query = "SELECT metadata FROM vecferry.find_similar_documents('docs', %s::text::vector, 10, '{\"rare\": true}')"
    assert [m for (m,) in store.connection.execute(query, (probe,)).fetchall()] == [{"rare": True}] * 10


def test_a_minimum_similarity_cuts_the_rest_off(store: PostgresStore) -> None:
    """Nothing below the minimum is returned, and everything above it is."""
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(100))
    probe = _text(vectors(records_of(100))[3])
    query = "SELECT similarity FROM vecferry.find_similar_documents('docs', %s::text::vector, 50, NULL, %s)"
    every = [s for (s,) in store.connection.execute(query, (probe, None)).fetchall()]
    some = [s for (s,) in store.connection.execute(query, (probe, 0.3)).fetchall()]
    assert some == [s for s in every if s >= 0.3]
    assert 0 < len(some) < len(every)


def test_cosine_similarity(store: PostgresStore) -> None:
    """1 for the same direction, 0 for a right angle."""
    query = "SELECT vecferry.cosine_similarity('[1,1]', '[2,2]'), vecferry.cosine_similarity('[1,0]', '[0,1]')"
    row = store.connection.execute(query).fetchone()
    assert row == pytest.approx((1.0, 0.0))


def test_a_read_only_role_can_search_and_nothing_else(store: PostgresStore) -> None:
    """sql/grant_read_only.sql grants searching and reading the status; writing stays refused."""
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(20))
    role = sql.Identifier(f"reader_{store.connection.info.dbname}")
    store.connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    store.connection.execute(
        statement("grant_read_only", role=role.as_string().strip('"'), schema="public", table="docs")
    )
    store.connection.execute(sql.SQL("SET ROLE {}").format(role))
    row = store.connection.execute(
        "SELECT count(*) FROM vecferry.find_similar_documents('docs', '[1,0,0,0,0,0,0,0]', 5)"
    ).fetchone()
    assert row == (5,)
    store.connection.execute("SELECT * FROM vecferry.status")
    with pytest.raises(errors.InsufficientPrivilege):
        store.connection.execute("DELETE FROM docs")
    with pytest.raises(errors.InsufficientPrivilege):
        store.connection.execute("SELECT * FROM vecferry.run")
