"""Calls of functions that were under way when these were switched, taken back or given back: none meets a function that is gone."""

import threading
from typing import Any

import pytest

from tasks.cutover import cutover, rollback
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run
from tasks.shadows.postgres import superseded
from tasks.shadows.registry import units_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.calls import PAUSE, pause_in, pausing
from tests.helpers.renamed_table import NEW, OLD, WRITE, Reports, ready, renaming, text_of, verified
from tests.helpers.search_definitions import CALL, DEFINITIONS
from tests.helpers.searched import NEW as NEW_DOCS, OLD as OLD_DOCS, fill, literal, migrated

__all__ = ["renaming"]
COPIES = r"SELECT proname FROM pg_proc WHERE proname ~ '^(match|update)_\w+_\d+_[0-9a-f]{8}$' ORDER BY 1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long for a call that does not end."""
    monkeypatch.setattr(superseded, "WAIT", 0.2)


def switched(connection: Connection) -> tuple[Run, str, list[Any]]:
    """A run that was cut over, a search as before it, which pauses from now on, and what it has answered."""
    fill(connection, "app", OLD_DOCS)
    connection.execute(DEFINITIONS[0].create.format(schema="app", d=16))  # type: ignore[call-overload]
    search = CALL.format(schema="app", q=literal(OLD_DOCS, 7))
    answer = connection.execute(search.encode()).fetchall()
    run = migrated(connection)
    cutover(run)
    pause_in(connection, "match_docs")
    return run, search, answer


def test_a_rollback_keeps_what_a_call_is_about_to_look_up(connection: Connection, database: str) -> None:
    """A search that began before the rollback is answered after it as before; the copy that it calls goes with the next rollback."""
    run, search, answer = switched(connection)
    with pausing(connection, database, search) as call:
        rollback(run)
        own = DEFINITIONS[0].create.format(schema="app", d=16).split("AS $$")[1].split("$$")[0]
        assert connection.execute("SELECT prosrc FROM pg_proc WHERE proname = 'match_docs'").fetchone() == (own,)
        assert len(connection.execute(COPIES).fetchall()) == 2, "that of the run, and the one that is called"
    assert call.outcome == answer
    rollback(run)
    assert len(connection.execute(COPIES).fetchall()) == 1


def test_a_rollback_waits_for_calls_that_end(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing of what was called stays."""
    monkeypatch.setattr(superseded, "WAIT", 20)
    run, search, answer = switched(connection)
    with pausing(connection, database, search) as call:
        back = threading.Thread(target=rollback, args=(run,))
        back.start()
        back.join(1)
        assert back.is_alive()
    back.join()
    assert call.outcome == answer
    assert len(connection.execute(COPIES).fetchall()) == 1


@pytest.mark.usefixtures("renaming")
def test_who_writes_while_functions_are_given_back(connection: Connection, database: str) -> None:
    """A write that began while another function stood in for the application's own, as one does that waited for the columns, is made."""
    reports = Reports(connection)
    run = verified(connection)
    cutover(run)
    (unit,) = units_of(run)
    settle = type(unit).settle
    write = f"SELECT update_report_embedding(7, '{reports.vector('another text', OLD)}'::vector)"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(unit), "settle", lambda _: None)
        rollback(run)
    pause_in(connection, "update_report_embedding")
    with pausing(connection, database, write) as call:
        settle(unit)
    assert call.outcome == [("",)]
    settle(unit)
    assert [name for (name,) in connection.execute(COPIES).fetchall() if "_16_" in name] == []
    cutover(ready(connection, run))
    assert reports.nearest(text_of(8), NEW)[0] == (8, text_of(8), 1)


@pytest.mark.usefixtures("renaming")
def test_who_called_the_applications_own_function_before_its_columns_are_renamed(
    connection: Connection, database: str
) -> None:
    """A write that has begun by that function is waited for: in its text the column has the name that it had."""
    slow = WRITE.replace("BEGIN ", f"BEGIN {PAUSE} ")
    reports = Reports(connection, write=slow)
    run = verified(connection)
    write = f"SELECT update_report_embedding(7, '{reports.vector('another text', OLD)}'::vector)"
    with pausing(connection, database, write) as call:
        (unit,) = units_of(run)
        switch = threading.Thread(target=unit.switch, args=(Mark(run.connection, lambda _: None),))
        switch.start()
        switch.join(2)
        assert switch.is_alive()
    switch.join()
    assert call.outcome == [("",)]
    assert reports.columns() == {"embedding_hashing_16": "vector(16)", "embedding": "vector(24)"}


def test_the_second_function_stays_the_same_one(connection: Connection) -> None:
    """match_docs_v2 is replaced and not made anew: whoever has looked it up already calls it all the same."""
    fill(connection, "app", OLD_DOCS)
    connection.execute(DEFINITIONS[0].create.format(schema="app", d=16))  # type: ignore[call-overload]
    run = migrated(connection)
    oid = "SELECT oid FROM pg_proc WHERE proname = 'match_docs_v2'"
    before = connection.execute(oid).fetchone()
    assert before
    cutover(run)
    assert connection.execute(oid).fetchone() == before
    rollback(run)
    assert connection.execute(oid).fetchone() == before
    search = CALL.replace("match_docs", "match_docs_v2")
    for model in (OLD_DOCS, NEW_DOCS):
        assert connection.execute(search.format(schema="app", q=literal(model, 7)).encode()).fetchall()
