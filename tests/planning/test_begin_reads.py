"""What a run asks of its source before it works on it: of a live table one count, no pass over its texts, no search."""

import time
from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from flows.text_384_to_1536 import text_384_to_1536
from tasks.begin import begin, preflight
from tasks.planning.registry import make_plan
from tasks.runs import ledger
from tasks.runs.plan import Plan
from tasks.stores.chroma.records import ChromaRecords
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.counting import count
from tests.checks.test_timed_search import busy
from tests.helpers.live import make_table
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.sent import recorded

ROWS = 200


def rows_read(connection: Connection) -> tuple[int, int]:
    """Rows of ``docs`` that anybody read so far, and searches by its vectors. Sessions report them when they end, and take
    a moment to end."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    until = time.monotonic() + 20
    while connection.execute(others).fetchone() != (0,) and time.monotonic() < until:
        time.sleep(0.02)
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0), "
        "(SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'docs_old') "
        "FROM pg_stat_user_tables WHERE relname = 'docs'"
    ).fetchone()
    assert row
    return row[0], row[1]


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_a_run_reads_a_live_table_once_before_it_begins(
    connection: Connection, provider: OpenAIServer, layout: str
) -> None:
    """The command's own look and the beginning of the flow together count the rows once, search nothing, and leave the
    model that is paid for alone."""
    make_table(connection, ROWS)
    form = parse(Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "layout": layout})
    rows, searches = rows_read(connection)
    preflight(form.request(), "one", form.given())
    assert rows_read(connection) == (rows, searches)
    begin(form.request(), "one", form.given(), asks_model=False)
    assert rows_read(connection) == (rows + ROWS, searches)
    assert provider.answered() == []


def test_a_run_lists_no_collection_before_it_begins(
    connection: Connection, chroma_dir: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan is made of what the source knows of itself; only `vecferry plan` goes through the ids, for its estimates."""
    listed: list[str] = []
    ids = ChromaRecords.ids
    monkeypatch.setattr(ChromaRecords, "ids", lambda self: listed.append(self.opened.name) or ids(self))
    form = parse(ChromaToPgvector, {"chroma": {"path": chroma_dir()}})
    preflight(form.request(), "one", form.given())
    begin(form.request(), "one", form.given(), asks_model=False)
    assert listed == []
    assert make_plan(connection, form.request(), "two").rows == 50
    assert listed == ["docs"]


@pytest.mark.usefixtures("prefect")
def test_a_run_that_begins_gives_way(connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its one pass over the keys is followed by a rest, while others use the database."""
    make_table(connection, 5)
    connection.execute("INSERT INTO docs (id, content) SELECT n, 'text ' || n FROM generate_series(6, 4005) n")
    rested: list[float] = []
    start = ledger.start

    def started(connection: Connection, plan: Plan, given: set[str]) -> None:
        rested.append(pace.rested(connection))
        start(connection, plan, given)

    monkeypatch.setattr(ledger, "start", started)
    monkeypatch.setattr(pace, "MOMENT", 0.0)
    target = {"table": "docs", "text": "content"}
    with busy(database):
        text_384_to_1536(
            targets=[target],
            embedder="hashing/1536",
            database_share=0.5,
            limit=5,
            run_id="one",
            gates={"min_recall": 0},
        )
    assert rested[0] > 0


@pytest.mark.parametrize("beside_others", [False, True])
def test_a_count_is_one_statement(
    connection: Connection, database: str, beside_others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is the same, whether way is given or not, of all rows and of some; while it rests, the application may
    change its table."""
    connection.execute("CREATE TABLE many AS SELECT nullif(n % 3, 0) AS n FROM generate_series(1, 2500) n")
    rests: list[float] = []
    share = 0.5 if beside_others else 1
    with psycopg.connect(database, application_name="app", autocommit=True) as app, pace.giving_way(database, share):

        def rest(turn: pace.PacedTurn) -> None:
            rests.append(turn.began)
            app.execute("ALTER TABLE many ADD COLUMN IF NOT EXISTS more integer")

        monkeypatch.setattr(pace.PacedTurn, "rest", rest)
        app.execute("SET lock_timeout = 500")
        with recorded() as statements:
            assert count(connection, sql.Identifier("many")) == 2500
            assert count(connection, sql.Identifier("many"), sql.SQL("n = 1")) == 834
        assert sum("counting.py" in one.where for one in statements) == 2
        assert len(rests) == (2 if beside_others else 0)
        with connection.transaction():
            assert count(connection, sql.Identifier("many")) == 2500
        assert len(rests) == (2 if beside_others else 0), "it rested within a transaction, which may hold locks"
