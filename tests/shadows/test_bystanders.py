"""The application's triggers fire when a column is filled: what they change of the old vectors stops the run, at the first rows."""

import logging
import re
from contextlib import AbstractContextManager

import psycopg
import pytest

from tasks.base.errors import FatalError
from tasks.load import load
from tasks.runs import checkpoints
from tasks.shadows.postgres.live.column import LiveColumn
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.live import make_table
from tests.helpers.sampling import sampled
from tests.shadows.test_live_sync import ROWS, begun_over, drained

BEFORE = "CREATE TRIGGER mine BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION f()"
CLEARS, SAME = "new.embedding := null; return new;", "return new;"
EARLY = "if new.id > 24 then new.embedding := null; end if; return new;"
TRIGGERS: dict[str, tuple[str, str, str | None]] = {
    "clears the old vector": (CLEARS, BEFORE, "changes embedding too, in 10 of 10 rows"),
    "clears it of some": (EARLY, BEFORE, r"changes embedding too, in \d+ of 10 rows"),
    "clears the new one": ("new.embedding_1536 := null; return new;", BEFORE, "embedding_1536 stays empty"),
    "writes nothing": ("return null;", BEFORE, "embedding_1536 stays empty when it is written"),
    "changes the text": ("new.content := new.content || '.'; return new;", BEFORE, "changes content too"),
    "changes the key": ("new.id := new.id + 1000; return new;", BEFORE, "changes id, content"),
    "refuses": ("raise exception 'hands off %', new.id;", BEFORE, "refused .hands off"),
    "refuses statements": (
        "raise exception 'hands off';",
        BEFORE.replace("EACH ROW", "EACH STATEMENT"),
        "refused .hands",
    ),
    "clears it afterwards": (
        "if new.embedding is not null then update docs set embedding = null where id = new.id; end if; return null;",
        BEFORE.replace("BEFORE", "AFTER"),
        "changes embedding too",
    ),
    "clears it at the end": (
        "if new.embedding is not null then update docs set embedding = null where id = new.id; end if; return null;",
        "CREATE CONSTRAINT TRIGGER mine AFTER UPDATE ON docs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()",
        "changes embedding too",
    ),
    "of another column": (CLEARS, BEFORE.replace("UPDATE ON", "UPDATE OF content ON"), None),
    "for another text": (
        CLEARS,
        BEFORE.replace("EXECUTE", "WHEN (old.content IS DISTINCT FROM new.content) EXECUTE"),
        None,
    ),
    "switched off": (CLEARS, f"{BEFORE}; ALTER TABLE docs DISABLE TRIGGER mine", None),
    "of inserts": (CLEARS, BEFORE.replace("UPDATE ON", "INSERT ON"), None),
    "does nothing": (SAME, BEFORE, None),
}


def planted(connection: Connection, body: str, trigger: str) -> None:
    make_table(connection, ROWS)
    connection.execute(f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ begin {body} end $$; {trigger}")


def old_vectors(connection: Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT id, content, embedding::text FROM docs ORDER BY id").fetchall()


def loading(layout: str = "column") -> LiveColumn:
    """Loads all there is, and catches up."""
    run = begun_over(layout)
    with run.connection() as connection:
        numbers = [b.number for b in checkpoints.batches(connection, run.run_id, "load")]
    assert not load(run, numbers).failed
    shadow = shadow_of(run, run.plan.targets[0])
    assert isinstance(shadow, LiveColumn)
    drained(shadow)
    return shadow


KEPT = (
    "clears the old vector",
    "clears it of some",
    "writes nothing",
    "refuses",
    "clears it at the end",
    "for another text",
)


@pytest.mark.parametrize("trigger", sampled(TRIGGERS, *KEPT))
def test_a_trigger_that_fires(connection: Connection, trigger: str) -> None:
    """One that changes what the migration stands on stops it by its name, and nothing of that is left; any other one does
    not."""
    body, definition, refusal = TRIGGERS[trigger]
    planted(connection, body, definition)
    before = old_vectors(connection)
    if refusal is None:
        loading()
    else:
        if "refused" in refusal:  # its batches fail, and may be run again once the trigger lets them pass
            with pytest.raises(AssertionError):
                loading()
            errors = connection.execute("SELECT error FROM vecferry.batch WHERE stage = 'load'").fetchall()
            words = [str(error) for (error,) in errors]
        else:
            with pytest.raises(FatalError) as raised:
                loading()
            words = [str(raised.value)]
        for text in words:
            assert re.search(refusal, text)
            assert "by the trigger mine" in text
            assert "layout=side_table" in text
            assert "vecferry rollback live" in text
    assert old_vectors(connection) == before


def test_a_table_beside_fires_nothing(connection: Connection) -> None:
    """In the layout side_table no row of the table is written."""
    planted(connection, CLEARS, BEFORE)
    before = old_vectors(connection)
    loading("side_table")
    assert old_vectors(connection) == before


def test_other_columns_that_change_are_told(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """The time of the last change goes on being set, and is told once."""
    planted(connection, "new.seen := new.seen + 1; return new;", BEFORE)
    with caplog.at_level(logging.WARNING, "vecferry"):
        shadow = loading()
        connection.execute("UPDATE docs SET content = 'other words' WHERE id = 7")
        with shadow.run.kept_open():
            drained(shadow)
    told = [r.getMessage() for r in caplog.records if "writing" in r.getMessage()]
    assert told[0] == "public.docs: writing embedding_1536 changes seen too, by mine; layout=side_table avoids that"


def test_a_trigger_that_is_made_meanwhile(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed by the very next rows: not one old vector is lost to it."""
    make_table(connection, ROWS)
    before, look, pieces = old_vectors(connection), LiveColumn._alone, list[int]()

    def planting(self: LiveColumn, own: Connection) -> AbstractContextManager[None]:
        pieces.append(1)
        if len(pieces) == 2:
            with psycopg.connect(database, autocommit=True) as other:
                other.execute(
                    f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ begin {CLEARS} end $$; {BEFORE}"
                )
        return look(self, own)

    monkeypatch.setattr(LiveColumn, "_alone", planting)
    with pytest.raises(FatalError, match="by the trigger mine"):
        loading()
    assert len(pieces) == 2
    assert old_vectors(connection) == before
