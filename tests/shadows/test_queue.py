"""The queue of a live table: how long it is and since when is told, and no row is left in it by a switch."""

import json
from typing import Any

import pytest

from tasks import verify as stage
from tasks.base.errors import VerificationRefused
from tasks.catch_up import catch_up
from tasks.cutover import cutover
from tasks.index import index
from tasks.runs import ledger, status, waiting
from tasks.runs.run import Run
from tasks.shadows.postgres.live.column import LiveColumn
from tasks.shadows.postgres.live.rows import LiveRows
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.live import faults
from tests.helpers.live_table import LAYOUTS
from tests.helpers.pipeline import gates
from tests.shadows.test_live_sync import begun, drained, loaded, meanwhile


def built(connection: Connection, layout: str) -> LiveColumn:
    """A run whose index is built and whose queue is empty."""
    run = begun(connection, layout)
    shadow = loaded(run)
    index(run, 0)
    drained(shadow)
    return shadow


def verified(run: Run) -> None:
    with run.connection() as connection:
        ledger.set_state(connection, run.run_id, "verified")


def never_right(monkeypatch: pytest.MonkeyPatch, *ids: str) -> None:
    """Whatever is written of these rows is taken for overtaken, as in a database whose hashes are of other bytes."""
    recheck = LiveRows._recheck

    def doubting(self: LiveRows, connection: Connection, names: list[str], hashes: list[bytes]) -> None:
        recheck(self, connection, names, [b"" if i in ids else h for i, h in zip(names, hashes, strict=True)])

    monkeypatch.setattr(LiveRows, "_recheck", doubting)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_cutover_while_a_row_stays_in_the_queue(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """A row that no pass takes off the queue fails the verification and the switch, with its name; what it waits for ended, it
    is switched."""
    shadow = built(connection, layout)
    run = shadow.run
    with monkeypatch.context() as planted:
        never_right(planted, "7", "8")
        connection.execute("UPDATE docs SET content = 'words of ' || id WHERE id IN (7, 8, 9)")
        verification = stage.verify(run, gates(), [catch_up(run, 0, 0.5).last])
        (queue,) = [c for c in verification.targets[0].checks if c.name == "queue"]
        assert (queue.passed, queue.result) == (False, "2 ('7', '8') stay in it")
        with pytest.raises(VerificationRefused, match=r"queue .2 .'7', '8'. stay in it, required 0"):
            verification.refuse()
        verified(run)
        with pytest.raises(
            VerificationRefused,
            match=r"2 rows \('7', '8'\) of .*vecferry status live shows .*vecferry cutover live tries",
        ):
            cutover(run)
        assert ledger.get(connection, "live").state == "verified"
    cutover(run)
    assert ledger.get(connection, "live").state == "cut_over"
    assert waiting.waiting(connection, shadow.target.place) == waiting.Waiting(0, None)


def test_what_arrives_during_a_cutover_does_not_stop_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are written while the last pass goes on, one of them over and over, wait for the next one, and the switch
    does not wait for them."""
    shadow = built(connection, "column")
    verified(shadow.run)
    connection.execute("UPDATE docs SET content = 'before' WHERE id < 5")

    def written() -> None:
        connection.execute("UPDATE docs SET content = 'meanwhile' WHERE id IN (3, 30)")

    meanwhile(monkeypatch, written)
    cutover(shadow.run)
    left = waiting.waiting(connection, shadow.target.place)
    assert left
    assert left.rows == 2
    drained(shadow)
    assert waiting.waiting(connection, shadow.target.place) == waiting.Waiting(0, None)


def test_a_long_transaction_of_others_does_not_stop_a_cutover(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before the last pass, and committed after it, arrived during it."""
    shadow = built(connection, "column")
    verified(shadow.run)
    connection.execute("UPDATE docs SET content = 'before' WHERE id < 5")
    with connect(database, "writer") as writer:
        writer.execute("BEGIN; UPDATE docs SET content = 'long ago' WHERE id = 9")
        meanwhile(monkeypatch, lambda: writer.execute("COMMIT"))
        cutover(shadow.run)
    left = waiting.waiting(connection, shadow.target.place)
    assert left
    assert left.rows == 1


def test_the_queue_is_told(connection: Connection, vecferry: Any) -> None:
    """`status` and a verification say how many rows wait and for how long; a row that is noted once more waits since it was
    first."""
    shadow = built(connection, "column")
    queue = f'vecferry."{shadow.target.place.queue}"'
    connection.execute("UPDATE docs SET content = 'words of ' || id WHERE id IN (7, 8, 9)")
    connection.execute(f"UPDATE {queue} SET noted_at = now() - interval '3 min'")
    assert "public.docs.embedding_1536: 3 rows in the queue, the oldest for 3 min" in vecferry("status", "live")[1]
    told = json.loads(vecferry("status", "live", "--json")[1])["targets"][0]["queue"]
    assert told["rows"] == 3
    assert 180 <= told["oldest_seconds"] < 240
    report = stage.verify(shadow.run, gates(), None).targets[0]
    assert [n for n in report.notes if "queue" in n] == [
        "3 rows in the queue, the oldest for 3 min; vecferry catch-up live brings them in line"
    ]
    with pytest.MonkeyPatch.context() as planted:
        never_right(planted, "7")
        shadow.follow(1.0)
    left = status.outcome(connection, "live").targets[0].queue
    assert left
    assert left.rows == 1
    assert 180 <= (left.oldest_seconds or 0) < 240


def test_a_queue_of_an_earlier_version(connection: Connection) -> None:
    """It has no times: it is told without them, and gets them with the next pass."""
    shadow = built(connection, "column")
    queue = f'vecferry."{shadow.target.place.queue}"'
    connection.execute(f"ALTER TABLE {queue} DROP COLUMN noted_at, DROP COLUMN noted_in")
    connection.execute("UPDATE docs SET content = 'words of ' || id WHERE id IN (7, 8, 9)")
    assert str(waiting.waiting(connection, shadow.target.place)) == "3 rows in the queue"
    verified(shadow.run)
    cutover(shadow.run)
    connection.execute("UPDATE docs SET content = 'later' WHERE id = 7")
    left = waiting.waiting(connection, shadow.target.place)
    assert left
    assert left.oldest_seconds is not None


OFF = {
    "off": "ALTER TABLE docs DISABLE TRIGGER ALL",
    "off and on": "ALTER TABLE docs DISABLE TRIGGER ALL; ALTER TABLE docs ENABLE TRIGGER ALL",
    "another table": "ALTER TABLE docs RENAME TO docs_before; CREATE TABLE docs (LIKE docs_before INCLUDING ALL); "
    "INSERT INTO docs SELECT * FROM docs_before",
}


@pytest.mark.parametrize("off", OFF)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_triggers_that_were_switched_off(connection: Connection, layout: str, off: str) -> None:
    """What was changed meanwhile is brought in line by the next pass, which switches them on; later changes are noted."""
    shadow = built(connection, layout)
    connection.execute(OFF[off])
    connection.execute("UPDATE docs SET content = 'unnoted ' || id WHERE id IN (7, 8); DELETE FROM docs WHERE id = 9")
    connection.execute("INSERT INTO docs (id, content) VALUES (900, 'a new row')")
    drained(shadow)
    assert faults(connection) == []
    connection.execute("UPDATE docs SET content = 'noted' WHERE id = 8")
    assert waiting.waiting(connection, shadow.target.place) != waiting.Waiting(0, None)
    drained(shadow)
    assert (faults(connection), shadow.compare().touched) == ([], 0)
