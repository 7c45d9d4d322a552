"""While others use the database vecferry gives way, and nobody waits long for a row that it writes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pyarrow as pa
import pytest

from tasks.shadows.postgres.live import rows as live_rows
from tasks.shadows.postgres.live.rows import LiveRows
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.wire import copy_records
from tasks.stores.records import with_hash
from tests.helpers.data import records_of
from tests.helpers.live_table import Table, migration_of
from tests.helpers.sampling import sampled

SHARE = 0.25


@pytest.fixture
def giving(database: str) -> Iterator[None]:
    """Way is given in ``database``."""
    with pace.giving_way(database, SHARE):
        yield


@contextmanager
def somebody(url: str) -> Iterator["psycopg.Connection[tuple[object]]"]:
    """A session of somebody else's that was at work a moment ago."""
    with psycopg.connect(url, autocommit=True, application_name="the application") as other:
        other.execute("SELECT 1")
        yield other


def worked(connection: Connection, seconds: float = 0.02) -> float:
    """Seconds that a piece of work took with the rest after it."""
    started = time.perf_counter()
    with pace.turn(connection):
        time.sleep(seconds)
    return time.perf_counter() - started


def rests(connection: Connection) -> bool:
    """Whether a piece of work is followed by a rest; asked of the pace itself, since a busy machine takes its time too."""
    before = pace.rested(connection)
    worked(connection)
    return pace.rested(connection) > before


def locked_rows(connection: Connection) -> int:
    """Rows of docs that another session has locked."""
    row = connection.execute(
        "SELECT count(*) FROM docs WHERE id NOT IN (SELECT id FROM docs FOR UPDATE SKIP LOCKED)"
    ).fetchone()
    assert row
    return int(row[0])


def test_alone_nothing_rests(connection: Connection, giving: None) -> None:
    assert not rests(connection)
    assert pace.rested(connection) == 0


def test_beside_others_it_is_at_work_for_its_share(connection: Connection, database: str, giving: None) -> None:
    with somebody(database):
        took = [worked(connection) for _ in range(5)]
    assert min(took) >= 0.02 / SHARE
    assert pace.others(connection) == 1
    assert len(took) * 0.02 * (1 / SHARE - 1) <= pace.rested(connection) <= sum(took)


def test_what_a_piece_waited_is_not_rested_for(connection: Connection, database: str, giving: None) -> None:
    """A piece that is held up, here by a lock, takes no more from others than those like it; nor does one whose processor somebody
    else has."""
    with somebody(database) as other, pace.turn(connection) as turn:
        for _ in range(5):
            time.sleep(0.02)
            turn.rest()
        other.execute("SELECT pg_advisory_lock(1)")
        threading.Timer(0.5, lambda: other.execute("SELECT pg_advisory_unlock(1)")).start()
        before = pace.rested(connection)
        connection.execute("SELECT pg_advisory_lock(1)")
        turn.rest()
        rested = pace.rested(connection) - before
    assert 0.02 * (1 / SHARE - 1) <= rested <= 0.5 * (1 / SHARE - 1) / 2


def test_a_piece_is_held_against_those_like_it_alone(connection: Connection, database: str, giving: None) -> None:
    """What came before a page is cut is other work, as quick as it may have been."""
    with somebody(database), pace.turn(connection) as turn:
        for _ in range(5):
            time.sleep(0.001)
            turn.rest()
        before = pace.rested(connection)
        for _ in turn.cut(2 * pace.SHORT):
            time.sleep(0.03)
        assert pace.rested(connection) - before >= 2 * 0.03 * (1 / SHARE - 1)


def test_pieces_one_by_one_are_alike(connection: Connection, database: str, giving: None) -> None:
    """Each in a turn of its own, such as the pages of a reading."""
    with somebody(database), pace.turns(connection) as take:
        for seconds in (0.02, 0.02, 0.5):
            before = pace.rested(connection)
            with take():
                time.sleep(seconds)
    assert pace.rested(connection) - before <= 0.5 * (1 / SHARE - 1) / 2


def test_a_share_of_one_gives_no_way(connection: Connection, database: str) -> None:
    with somebody(database), pace.giving_way(database, 1):
        assert not rests(connection)
        assert pace.others(connection) == 0


def test_nothing_rests_where_nobody_asked_for_it(connection: Connection, database: str) -> None:
    with somebody(database):
        assert not rests(connection)


def test_sessions_that_only_are_there_are_not_at_work(connection: Connection, database: str, giving: None) -> None:
    with somebody(database):
        time.sleep(2.1)
        assert not rests(connection)


def test_our_own_sessions_are_not_others(connection: Connection, database: str, giving: None) -> None:
    with connect(database, "vecferry another") as own:
        own.execute("SELECT 1")
        assert not rests(connection)


def test_sessions_that_may_not_be_seen_count_as_at_work(connection: Connection, database: str) -> None:
    """A role without pg_read_all_stats sees that another role's session is there, and not what it does."""
    connection.execute("DROP ROLE IF EXISTS vecferry_blind")
    connection.execute("CREATE ROLE vecferry_blind LOGIN")
    blind = psycopg.conninfo.make_conninfo(database, user="vecferry_blind")
    with somebody(database), pace.giving_way(blind, SHARE), connect(blind, "vecferry") as own:
        time.sleep(2.1)
        assert worked(own) >= 0.02 / SHARE


def test_one_piece_at_a_time(connection: Connection, database: str, giving: None) -> None:
    """Two workers never keep two of the server's processors."""
    together, most = [0], [0]

    def work() -> None:
        with connect(database, "vecferry worker") as own, pace.turn(own):
            together[0] += 1
            most[0] = max(most[0], together[0])
            time.sleep(0.02)
            together[0] -= 1

    with somebody(database):
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert most == [1]


def test_work_within_work_does_not_wait_for_itself(connection: Connection, database: str, giving: None) -> None:
    with somebody(database), pace.turn(connection), pace.turn(connection) as inner:
        assert inner.gives_way


def test_a_statement_is_one_piece_and_the_session_is_left_as_it_was(
    connection: Connection, database: str, giving: None
) -> None:
    usual = connection.execute("SHOW max_parallel_workers_per_gather").fetchone()
    with somebody(database):
        with pace.turn(connection):
            assert connection.execute("SHOW max_parallel_workers_per_gather").fetchone() == ("0",)
        assert connection.execute("SHOW max_parallel_workers_per_gather").fetchone() == usual
        with pytest.raises(psycopg.errors.DivisionByZero), pace.turn(connection), connection.transaction():
            connection.execute("SELECT 1/0")
        assert connection.execute("SHOW max_parallel_workers_per_gather").fetchone() == usual


def test_the_next_one_goes_on_after_a_failure(connection: Connection, database: str, giving: None) -> None:
    with somebody(database):
        with pytest.raises(RuntimeError), pace.turn(connection):
            raise RuntimeError
        assert worked(connection) >= 0.02 / SHARE


def test_rows_are_cut_into_short_pieces_beside_others_only(connection: Connection, database: str, giving: None) -> None:
    with pace.turn(connection) as turn:
        assert list(turn.cut(250)) == [slice(0, 250)]
        assert list(turn.cut(0)) == []
    with somebody(database):
        time.sleep(pace.LOOK)
        with pace.turn(connection) as turn:
            assert list(turn.cut(250)) == [slice(0, 100), slice(100, 200), slice(200, 300)]
            assert list(turn.cut(0)) == []


def test_what_a_table_is_loaded_with_comes_with_rests(connection: Connection, database: str, giving: None) -> None:
    """COPY of rows of any width rests too, not only after its end."""
    connection.execute(
        "CREATE TABLE docs (id text, document text, metadata jsonb, uri text, embedding vector(8), content_hash bytea)"
    )
    page, rests = with_hash(pa.Table.from_batches([records_of(20_000, 8)])), []
    with somebody(database), pace.turn(connection) as turn:
        turn.rest = lambda: rests.append(1)  # type: ignore[method-assign]
        copy_records(connection, psycopg.sql.Identifier("docs"), page, "vector", turn)
    assert len(rests) > 10


@pytest.mark.parametrize("layout", sampled(["column", "side_table"], "column"))
def test_a_run_gives_way_and_is_right(
    connection: Connection, database: str, prefect: None, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole flow beside somebody who goes on working: it rests, no live row is locked meanwhile, and every row has its
    vector."""
    table, done = Table(connection), threading.Event()
    locked: list[int] = []
    resting = pace.PacedTurn.rest

    def watched(turn: pace.PacedTurn) -> None:
        locked.append(locked_rows(connection))
        resting(turn)

    monkeypatch.setattr(pace.PacedTurn, "rest", watched)

    def work() -> None:
        with somebody(database) as other:
            while not done.wait(0.05):
                other.execute("SELECT count(*) FROM docs")

    other = threading.Thread(target=work)
    other.start()
    try:
        made = migration_of(table, layout).run(run_id="beside")
    finally:
        done.set()
        other.join()
    assert made["state"] == "verified"
    assert len(locked) > 10
    assert max(locked) == 0
    assert table.vectors() == table.expected()


def test_a_live_row_is_locked_for_a_short_piece_only(
    connection: Connection, database: str, prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the layout column rows of the live table are written ten at a time, each ten in a transaction of their own."""
    table, locked = Table(connection), list[int]()
    put = LiveRows.put

    def watched(rows: LiveRows, at: Connection, page: pa.Table, *more: object, **named: object) -> None:
        put(rows, at, page, *more, **named)  # type: ignore[arg-type]
        locked.append(locked_rows(connection))

    monkeypatch.setattr(live_rows.LiveRows, "put", watched)
    assert migration_of(table, "column", workers=1).run(run_id="short")["state"] == "verified"
    assert max(locked) == 10
    assert sum(locked) == len(table.expected())
