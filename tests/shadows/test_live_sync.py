"""Live sync is exact: a look that shares no code with it finds nothing wrong, and finds the faults that are planted."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg import sql

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks import snapshot
from tasks.base import settings
from tasks.begin import begin
from tasks.cutover import rollback
from tasks.load import expand, load, prepare
from tasks.runs import checkpoints, ledger
from tasks.runs.run import Run, open_run
from tasks.shadows.postgres.live import queue as live_queue
from tasks.shadows.postgres.live.column import LiveColumn
from tasks.shadows.postgres.live.place import queue
from tasks.shadows.postgres.live.rows import LiveRows
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pgvector import MAX_TUPLE, Layout, tuple_target
from tests.helpers.live import faults, make_table
from tests.helpers.live_table import LAYOUTS

ROWS = 40


def begun(connection: Connection, layout: str) -> Run:
    """A run over a new ``docs`` whose snapshot is taken and whose batches are cut, not loaded."""
    make_table(connection, ROWS)
    return begun_over(layout)


def begun_over(layout: str, text: str = "content", **parameters: Any) -> Run:
    """The same over the ``docs`` that is there; ``parameters`` are those of text-384-to-1536."""
    form = parse(
        Text384To1536,
        {
            "targets": [{"table": "docs", "text": text}],
            "embedder": "hashing/1536",
            "layout": layout,
            "batch_rows": 20,
            **parameters,
        },
    )
    begin(form.request(), "live", form.given())
    run = open_run("live", settings.DEFAULT_DATABASE)
    expand(run)
    for listing in range(2):
        if not snapshot.list_ids(run, listing):
            break
        with run.connection() as connection:
            numbers = [b.number for b in checkpoints.batches(connection, run.run_id, "snapshot")]
        snapshot.snapshot(run, numbers)
    snapshot.finish(run)
    prepare(run)
    return run


def loaded(run: Run) -> LiveColumn:
    with run.connection() as connection:
        numbers = [b.number for b in checkpoints.batches(connection, run.run_id, "load")]
    assert not load(run, numbers).failed
    result = shadow_of(run, run.plan.targets[0])
    assert isinstance(result, LiveColumn)
    return result


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
    """``happens`` once, after the next texts were read and before their vectors are written."""
    embed, left = live_queue.embedded, [happens]

    def slow(*args: Any, **kwargs: Any) -> Any:
        embedded = embed(*args, **kwargs)
        if left:
            left.pop()()
        return embedded

    monkeypatch.setattr(live_queue, "embedded", slow)


def drained(shadow: LiveColumn) -> None:
    for _ in range(5):
        if not shadow.follow(1.0).touched:
            return
    raise AssertionError("the queue does not empty")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_that_is_marked_before_its_rows_are_written_is_noticed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """With a checkpoint ahead of the data the look finds every row missing; without, none."""
    run = begun(connection, layout)
    with monkeypatch.context() as planted:
        planted.setattr(LiveColumn, "write", lambda *_, **__: None)
        shadow = loaded(run)
    drained(shadow)
    assert len(faults(connection)) == ROWS
    checkpoints.reopen(connection, run.run_id, "load")
    drained(loaded(run))
    assert faults(connection) == []


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_change_while_the_text_is_at_the_provider(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, layout: str, planted: bool
) -> None:
    """A text that changes while its vector is made is embedded again; a queue that is deleted by id loses the change."""
    shadow = loaded(begun(connection, layout))
    change = "UPDATE docs SET content = %s WHERE id = 7"
    connection.execute(change, ("first change",))
    meanwhile(monkeypatch, lambda: connection.execute(change, ("second change",)))
    if planted:
        monkeypatch.setattr(LiveRows, "_recheck", lambda *_: None)
        renew = live_queue.renew

        def by_id(rows: LiveRows, other: Connection, ids: list[str], seqs: list[int]) -> Any:
            result = renew(rows, other, ids, seqs)
            other.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(queue(rows.target.place)), (ids,))
            return result

        monkeypatch.setattr(live_queue, "renew", by_id)
    drained(shadow)
    assert faults(connection) == (["7 is stale"] if planted else [])


@pytest.mark.parametrize("planted", [False, True])
def test_two_workers_with_one_row(connection: Connection, monkeypatch: pytest.MonkeyPatch, planted: bool) -> None:
    """A worker that was overtaken by another, with a later text, does not write its older vector over the newer one;
    without the hash guard it does."""
    shadow = loaded(begun(connection, "side_table"))
    change = "UPDATE docs SET content = %s WHERE id = 7"
    connection.execute(change, ("first change",))

    def overtake() -> None:
        connection.execute(change, ("second change",))
        drained(shadow)

    meanwhile(monkeypatch, overtake)
    if planted:
        monkeypatch.setattr(LiveRows, "_recheck", lambda *_: None)
    drained(shadow)
    assert faults(connection) == (["7 is stale"] if planted else [])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_that_is_truncated(connection: Connection, layout: str) -> None:
    """TRUNCATE takes the vectors along, and what is inserted afterwards is embedded."""
    shadow = loaded(begun(connection, layout))
    connection.execute("TRUNCATE docs")
    connection.execute("INSERT INTO docs (id, content) VALUES (3, 'a new beginning')")
    drained(shadow)
    assert faults(connection) == []
    assert shadow.compare().compared == 1


def test_vectors_beside_the_table_lie_in_their_rows(connection: Connection) -> None:
    """Cut into pieces in a table of their own, they are written a third slower and read in twice the time."""
    shadow = loaded(begun(connection, "side_table"))
    elsewhere = connection.execute(
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = to_regclass(%s)", (shadow.side.as_string(),)
    ).fetchone()
    assert elsewhere == (0,)


@pytest.mark.parametrize(
    ("dimensions", "inside"), [(768, True), (1024, False), (1536, True), (2000, True), (3072, False)]
)
def test_vectors_that_would_leave_much_of_a_page_empty_do_not(dimensions: int, inside: bool) -> None:
    assert (tuple_target(Layout("vector", dimensions, "cosine"), 100) == MAX_TUPLE) is inside


def test_a_column_of_the_users_stays_as_it_is(connection: Connection) -> None:
    """A column that was there before the run is emptied by a rollback, and keeps its place, its comment, its rights and the view
    that reads it; one that the run made is dropped."""
    make_table(connection, ROWS)
    connection.execute("ALTER TABLE docs ADD embedding_1536 vector(1536), ADD later int DEFAULT 3")
    connection.execute(
        "COMMENT ON COLUMN docs.embedding_1536 IS 'mine'; GRANT SELECT (embedding_1536) ON docs TO pg_monitor"
    )
    connection.execute("CREATE VIEW seen AS SELECT id, embedding_1536 FROM docs")
    column = (
        "SELECT attnum, format_type(atttypid, atttypmod), attacl::text, col_description(attrelid, attnum) "
        "FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'embedding_1536'"
    )
    before = connection.execute(column).fetchone()
    shadow = loaded(begun_over("column"))
    assert shadow.known(connection, ["7"])
    assert connection.execute("SELECT count(*) FROM docs WHERE embedding_1536 IS NULL").fetchone() == (0,)
    rollback(shadow.run)
    assert connection.execute("SELECT count(*), count(embedding_1536), sum(later) FROM docs").fetchone() == (
        ROWS,
        0,
        3 * ROWS,
    )
    assert connection.execute(column).fetchone() == before

    connection.execute("DROP VIEW seen; ALTER TABLE docs DROP embedding_1536")
    shadow = loaded(begun_over("column"))
    ledger.set_state(connection, "live", "running")
    rollback(shadow.run)
    assert connection.execute(column).fetchone() is None
