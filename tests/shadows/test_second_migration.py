"""Migrations of one table follow each other without end: while one is made, tried and taken back, the earlier one serves."""

import re
from contextlib import suppress
from graphlib import TopologicalSorter
from itertools import product
from typing import Any

import pytest
from psycopg import errors

from flows.catch_up import catch_up
from flows.contract import contract
from flows.cutover import cutover
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from flows.verify import verify
from tasks.base.errors import UsageError, VecferryError
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import status
from tasks.stores.postgres.connection import Connection
from tests.fixtures.freezing import live_table
from tests.helpers.live_table import LAYOUTS, vectors_of
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")

ROWS = 30
FIRST = {"run_id": "first", "old": 8, "new": 16}
SECOND = {"run_id": "second", "old": 16, "new": 32}
THIRD = {"run_id": "third", "old": 32, "new": 64}


def migrate(layout: str, run_id: str, old: int, new: int, column: str | None = None, **more: Any) -> str:
    """Runs the flow from the vectors of ``old`` dimensions, in ``column``, to those of ``new``; returns the run's state."""
    before = column or ("embedding" if old == 8 else f"embedding_{old}")
    target = {"table": "docs", "text": "content", "old_column": before, "new_column": f"embedding_{new}"}
    models = {"embedder": f"hashing/{new}"} | ({} if column else {"old_embedder": f"hashing/{old}"})
    return str(text_384_to_1536(targets=[target], layout=layout, run_id=run_id, **models, **more)["state"])


def found_by(connection: Connection, dimensions: int, function: str = "match_docs") -> list[float]:
    """The similarities that the function answers a query of so many dimensions with, the words of a row, whose own is 1.
    Rows that are equally near come in any order, so their names say nothing."""
    (query,) = vectors_of(HashingEmbedder(dimensions))(["text 7 of docs"])
    rows = connection.execute(
        f"SELECT similarity FROM {function}(%s::vector, -2, 5)", (str(query.tolist()),)
    ).fetchall()
    return [round(similarity, 4) for (similarity,) in rows]


def served(connection: Connection) -> dict[int, list[float]]:
    """What the application's function answers, by the dimensions of the query; those that it refuses are left out."""
    answers: dict[int, list[float]] = {}
    for dimensions in (8, 16, 32, 64):
        with suppress(errors.DataException):  # its own refusal, or that of an operator
            answers[dimensions] = found_by(connection, dimensions)
    assert all(nearest == 1 for nearest, *_ in answers.values())
    return answers


def bodies(connection: Connection) -> dict[str, str]:
    """The search functions there are, by name."""
    return dict(connection.execute("SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'match\\_docs%'").fetchall())


def assert_no_function_calls_itself(connection: Connection) -> None:
    """Directly or by way of another."""
    every = bodies(connection)
    calls = {
        name: {other for other in every if re.search(rf'(?<!\w){other}"?\s*\(', body)} for name, body in every.items()
    }
    TopologicalSorter(calls).prepare()  # raises CycleError


def active(connection: Connection) -> tuple[Any, ...] | None:
    """What applications read."""
    return connection.execute("SELECT column_name, dimensions FROM vecferry.active_space").fetchone()


@pytest.fixture
def docs(connection: Connection) -> Connection:
    """A database with a live table ``docs`` and its ``match_docs``, of 8 dimensions."""
    live_table(connection, "docs", ROWS, vectors_of(HashingEmbedder(8)))
    return connection


@pytest.mark.parametrize(
    ("layout", "column"),
    sampled(product(LAYOUTS, (None, "embedding")), ("column", None)),
)
def test_a_run_changes_no_search_before_its_cutover(docs: Connection, layout: str, column: str | None) -> None:
    """A smoke run over a table that was switched before, and its rollback, leave every answer and the function as they are;
    meanwhile match_docs_v2 answers for the first run and for the second."""
    assert migrate(layout, **FIRST) == "verified"
    cutover(run_id="first")
    before, body = served(docs), bodies(docs)["match_docs"]
    assert before.keys() == {8, 16}

    assert migrate(layout, **SECOND, column=column, limit=20) == "verified"
    assert served(docs) == before
    assert bodies(docs)["match_docs"] == body
    assert found_by(docs, 16, "match_docs_v2") == before[16]
    assert found_by(docs, 32, "match_docs_v2")[0] == 1
    assert_no_function_calls_itself(docs)

    assert rollback(run_id="second")["state"] == "rolled_back"
    assert served(docs) == before
    assert bodies(docs)["match_docs"] == body
    assert found_by(docs, 16, "match_docs_v2") == before[16]
    assert active(docs) == ("embedding_16", 16)
    assert_no_function_calls_itself(docs)


@pytest.mark.parametrize("layout", sampled(LAYOUTS, "side_table"))
def test_a_second_switch_keeps_what_the_first_made(docs: Connection, layout: str) -> None:
    """Both from the vectors that the table came with: queries of each of the three dimensions are answered, and no function
    calls itself."""
    assert migrate(layout, **FIRST) == "verified"
    cutover(run_id="first")
    assert migrate(layout, **SECOND, column="embedding") == "verified"
    cutover(run_id="second")
    assert_no_function_calls_itself(docs)
    assert served(docs).keys() == {8, 16, 32}


@pytest.mark.whole
@pytest.mark.parametrize("layout", sampled(LAYOUTS, "column"))
def test_migrations_follow_each_other(docs: Connection, layout: str) -> None:
    """8 → 16 → 32 → 64: each is run, cut over, taken back, cut over again and contracted while the earlier one serves; one
    under a later one is not taken back."""
    assert migrate(layout, **FIRST) == "verified"
    cutover(run_id="first")
    first = served(docs)
    assert first.keys() == {8, 16}

    assert migrate(layout, **SECOND) == "verified"
    assert served(docs) == first
    assert cutover(run_id="second")["state"] == "cut_over"
    second = served(docs)
    assert second.keys() == {8, 16, 32}
    assert {d: second[d] for d in first} == first
    assert active(docs) == ("embedding_32", 32)
    assert_no_function_calls_itself(docs)

    with pytest.raises(VecferryError, match="second") as refused:
        rollback(run_id="first")
    assert "\n" not in str(refused.value)
    assert status.outcome(docs, "first").state == "cut_over"
    assert served(docs) == second

    assert rollback(run_id="second")["state"] == "rolled_back"
    assert served(docs) == first
    assert active(docs) == ("embedding_16", 16)
    assert_no_function_calls_itself(docs)

    assert cutover(run_id="second")["state"] == "cut_over"
    assert served(docs) == second
    assert contract(run_id="first", rollback_days=0)["state"] == "contracted"
    assert served(docs) == {d: second[d] for d in (16, 32)}
    assert active(docs) == ("embedding_32", 32)
    assert_no_function_calls_itself(docs)

    assert migrate(layout, **THIRD) == "verified"
    assert served(docs) == {d: second[d] for d in (16, 32)}
    assert cutover(run_id="third")["state"] == "cut_over"
    third = served(docs)
    assert third.keys() == {16, 32, 64}
    assert contract(run_id="second", rollback_days=0)["state"] == "contracted"
    assert served(docs) == {d: third[d] for d in (32, 64)}
    assert rollback(run_id="third")["state"] == "rolled_back"
    assert served(docs) == {32: third[32]}
    assert active(docs) == ("embedding_32", 32)
    assert_no_function_calls_itself(docs)


@pytest.mark.whole
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_whose_old_vectors_are_dropped_stays_whole(docs: Connection, layout: str) -> None:
    """The second, planned from the vectors that the table came with, is checked, followed and taken back after a contract
    of the first has dropped those."""
    assert migrate(layout, **FIRST) == "verified"
    cutover(run_id="first")
    assert migrate(layout, **SECOND, column="embedding", old_embedder="hashing/8") == "verified"
    with pytest.raises(UsageError, match=r"run second compares its vectors with public.docs.embedding"):
        contract(run_id="first", rollback_days=0)
    cutover(run_id="second")
    assert contract(run_id="first", rollback_days=0)["state"] == "contracted"
    assert verify(run_id="second")["exit"] == 0
    docs.execute("UPDATE docs SET content = 'text 7 of docs, changed' WHERE id = 7")
    assert catch_up(run_id="second")["targets"][0]["touched"]["updated"] == 1
    assert rollback(run_id="second")["state"] == "rolled_back"
    assert served(docs).keys() == {16}
