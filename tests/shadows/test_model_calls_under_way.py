"""Searches by the functions of several models that are under way while a column is renamed or a model retired."""

import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import coverage, registry
from tasks.shadows.postgres import superseded
from tasks.shadows.postgres.models import init, rename, retire
from tasks.shadows.postgres.models.init import Asked, Source
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables
from tests.helpers.calls import pause_in, pausing
from tests.helpers.several_models import several

VECTOR = "'[1,2,3,4,5,6,7,8]'"
SEARCHES = {
    "by the active one": f"SELECT chunk_id, rank FROM search_chunks({VECTOR})",
    "by one, inlined": f"SELECT chunk_id, rank FROM search_chunks_1({VECTOR})",
    "by several": f"SELECT chunk_id, rank FROM search_chunks_multi(ARRAY[{VECTOR}]::vector[], ARRAY['hashing/8'])",
}


def fixed(connection: Connection) -> ModelTables:
    """Tables with a column of their own, and one chunk."""
    connection.execute(
        "CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE documents (id int PRIMARY KEY); "
        "CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int REFERENCES documents, content text); "
        "CREATE TABLE chunk_embeddings (chunk_id int REFERENCES document_chunks, embedding vector(8));"
        "INSERT INTO documents VALUES (1); INSERT INTO document_chunks VALUES (1, 1, 'a');"
        f"INSERT INTO chunk_embeddings VALUES (1, {VECTOR})"
    )
    return init.initialise(connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space)))[0]


def test_searches_that_wait_for_a_rename_are_answered(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is sent while the column has its new name and the lock goes on, known to the server from before or not; and back."""
    tables, note_counts = fixed(connection), coverage.note_counts
    outcomes = dict[str, Any]()
    threads = list[threading.Thread]()
    sessions = {
        f"{name}{prepared}": psycopg.connect(database, autocommit=True)
        for name in SEARCHES
        for prepared in ("", ", prepared")
    }
    for name, session in sessions.items():
        if name.endswith("prepared"):
            session.execute(SEARCHES[name.removesuffix(", prepared")].encode(), prepare=True)

    def send(name: str) -> None:
        try:
            outcomes[name] = sessions[name].execute(SEARCHES[name.removesuffix(", prepared")].encode()).fetchall()
        except psycopg.Error as error:
            outcomes[name] = error

    def meanwhile(within: Connection, tables: ModelTables) -> None:
        note_counts(within, tables)
        outcomes.clear()
        threads[:] = [threading.Thread(target=send, args=(name,)) for name in sessions]
        for thread in threads:
            thread.start()
        pids, until = [session.info.backend_pid for session in sessions.values()], time.monotonic() + 20
        waiting = sql.SQL("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid = ANY({})").format(pids)
        while within.execute(waiting).fetchone() != (len(pids),) and time.monotonic() < until:
            time.sleep(0.01)
        assert outcomes == {}

    monkeypatch.setattr(coverage, "note_counts", meanwhile)
    for by_dimensions in (True, False):
        rename.rename(connection, tables, by_dimensions)
        for thread in threads:
            thread.join()
        assert outcomes == {name: [(1, 1)] for name in sessions}
    bodies = "SELECT count(*) FROM pg_proc WHERE proname = 'search_chunks_1' AND prosqlbody IS NULL"
    assert connection.execute(bodies).fetchone() == (1,), (
        "nobody's ALTER TABLE meets a function that depends on a column"
    )
    for session in sessions.values():
        session.close()


def test_a_search_that_began_before_its_model_was_retired_is_answered(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its function goes once the search has ended, or with the vectors."""
    monkeypatch.setattr(superseded, "WAIT", 0.2)
    made = several(connection, ["hashing/8", "hashing/16"], 3)
    functions = "SELECT proname FROM pg_proc WHERE proname ~ '^search_chunks_[0-9]+$' ORDER BY 1"
    pause_in(connection, "search_chunks")
    search = f"SELECT count(*) FROM search_chunks({VECTOR.replace(',8', ',8' * 9)}, model_name => 'hashing/16')"
    with pausing(connection, database, search) as call:
        retire.retire(connection, made.tables, "hashing/16")
        assert len(connection.execute(functions).fetchall()) == 2
        assert [m.ended for m in registry.listed(connection, made.tables)] == [False, True]
    assert call.outcome == [(5,)]
    retire.retire(connection, made.tables, "hashing/16", rollback_days=0)
    assert connection.execute(functions).fetchall() == [("search_chunks_1",)]
