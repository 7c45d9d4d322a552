"""Rows without a vector are counted in the table itself, and not by what the run has noted."""

import pytest

from flows.text_384_to_1536 import text_384_to_1536
from flows.verify import verify
from tasks.base.errors import VerificationRefused
from tasks.checks.coverage import coverage_checks
from tasks.runs.run import open_run
from tasks.shadows.difference import Coverage, Named
from tasks.shadows.postgres.live import place
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import LAYOUTS, Table
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.mark.parametrize("layout", sampled(LAYOUTS, "column"))
def test_rows_without_a_vector_are_counted_in_the_table(connection: Connection, layout: str) -> None:
    """A vector that somebody took away fails verification though the run's list has the row as done, and whatever else the queue
    hides; rows that wait, or were set aside, are told as such."""
    Table(connection, rows=60)
    saying = 60 - sum(n % 11 == 10 or n % 13 == 12 for n in range(60))
    targets = [{"table": "docs", "text": "content"}]
    text_384_to_1536(targets=targets, embedder="hashing/1536", layout=layout, run_id="r", gates={"min_recall": 0})
    run = open_run("r", "DATABASE_URL")
    shadow, side = shadow_of(run, run.plan.targets[0]), place.side_table(run.plan.targets[0].place).as_string()
    assert shadow.coverage() == Coverage(saying, 0, 0, 0, Named())

    connection.execute("INSERT INTO docs (id, content) VALUES (900, 'not caught up yet')")
    if layout == "column":
        connection.execute("UPDATE docs SET embedding_1536 = NULL WHERE id IN (3, 5)")
        connection.execute(f"UPDATE {side} SET refused = 'too long' WHERE k1 = 5")
    else:
        connection.execute(f"UPDATE {side} SET embedding = NULL WHERE k1 = 3")
        connection.execute(f"UPDATE {side} SET embedding = NULL, refused = 'too long' WHERE k1 = 5")
    assert shadow.coverage() == Coverage(saying + 1, 3, 1, 1, Named(1, ("3",)))
    with pytest.raises(
        VerificationRefused,
        match=rf"vectors \({saying - 2} of {saying + 1} rows have one; 1 row was set aside; 1 row is",
    ):
        verify(run_id="r", gates={"min_recall": 0, "max_quarantined": 1})


def test_only_what_has_no_reason_fails() -> None:
    """Rows that were set aside or that wait are told; a table in which no row says anything was not looked at."""
    (told,) = coverage_checks(Coverage(1_000, 5, 2, 3, Named()))
    assert (told.passed, told.looked_at, told.wanted) == (True, 1_000, "995")
    assert told.result == "995 of 1,000 rows have one; 2 rows were set aside; 3 rows are in the queue"
    (told,) = coverage_checks(Coverage(10, 4, 1, 0, Named(3, ("1", "2", "3"))))
    assert (told.passed, told.wanted) == (False, "9")
    assert (
        told.result
        == "6 of 10 rows have one; 1 row was set aside; 3 rows have none, and nothing says why ('1', '2', '3')"
    )
    assert not coverage_checks(Coverage(0, 0, 0, 0, Named()))[0].passed
    assert coverage_checks(None) == []
