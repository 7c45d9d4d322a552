"""Two who change the models of the same tables at once, and what one of them leaves when it is killed."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tasks.base.errors import UsageError
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import coverage, registry
from tasks.shadows.postgres import superseded
from tasks.shadows.postgres.models import init, rename, retire, rollback, setup, switch
from tasks.shadows.postgres.models.init import Asked, Source
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.model_tables import ModelTables
from tests.shadows.test_model_tables import FIXED, filled, prepared, wanted


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, do: Callable[[], object], after: bool = True
) -> None:
    """The first time ``module.name`` is called, somebody does ``do`` after it, or before."""
    real, left = getattr(module, name), [1]

    def called(*args: Any, **more: Any) -> Any:
        first = left and left.pop()
        if first and not after:
            do()
        result = real(*args, **more)
        if first and after:
            do()
        return result

    monkeypatch.setattr(module, name, called)


@pytest.fixture
def tables(connection: Connection) -> ModelTables:
    tables = prepared(connection, 8, 4)
    filled(connection, 3)
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_8) SELECT id, 1, '[1,2,3,4,5,6,7,8]' FROM document_chunks;"
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) SELECT id, 2, '[1,2,3,4]' FROM document_chunks"
    )
    return tables


def rows(connection: Connection) -> list[tuple[int, int]]:
    return connection.execute(
        "SELECT model_id::int, count(*)::int FROM chunk_embeddings GROUP BY 1 ORDER BY 1"
    ).fetchall()


def consistent(connection: Connection, tables: ModelTables) -> None:
    """One model is active, each can be searched if it is said so, whoever writes can, and the counters are what is there."""
    models = registry.listed(connection, tables)
    assert [m for m in models if m.active]
    for m in models:
        vector = str([1.0] * m.dimensions)
        if m.searched:
            connection.execute("SELECT * FROM search_chunks(%s, model_name => %s)", (vector, m.name))
        with connection.transaction(force_rollback=True):
            connection.execute(
                "INSERT INTO document_chunks (id, document_id, chunk_index, content) VALUES (99, 1, 99, 'more')"
            )
            connection.execute(
                f"INSERT INTO chunk_embeddings (chunk_id, model_id, {m.column}) VALUES (99, %s, %s)", (m.id, vector)
            )
            assert coverage.covered(connection, tables)[m.number].with_vector == dict(rows(connection))[int(m.id)]


@pytest.mark.parametrize("by", ["activate", "setup"])
def test_a_model_is_brought_back_while_its_vectors_go(
    connection: Connection, tables: ModelTables, database: str, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Who comes first wins: it loses no further vector."""
    retire.retire(connection, tables, "4")
    with connect(database) as other:

        def back() -> None:
            if by == "activate":
                switch.activate(other, tables, "4")
            else:
                setup.set_up(other, tables, wanted(4))

        meanwhile(monkeypatch, retire, "_delete", back, after=False)
        with pytest.raises(UsageError, match="hashing/4 was brought back meanwhile"):
            retire.retire(connection, tables, "4", 0)
    assert registry.default(connection, tables).name == ("hashing/4" if by == "activate" else "hashing/8")
    assert rows(connection) == [(1, 3), (2, 3)]
    consistent(connection, tables)


def test_two_drop_the_same_vectors(
    connection: Connection, tables: ModelTables, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them has done it, and the other says so."""
    retire.retire(connection, tables, "4")
    with connect(database) as other:
        meanwhile(monkeypatch, retire, "_delete", lambda: retire.retire(other, tables, "4", 0))
        with pytest.raises(UsageError, match="the vectors of hashing/4 were dropped meanwhile by another command"):
            retire.retire(connection, tables, "4", 0)
    consistent(connection, tables)


def test_activate_of_what_was_dropped_meanwhile(
    connection: Connection, tables: ModelTables, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused as one that nobody has registered, and the default stays what it was."""
    retire.retire(connection, tables, "4")
    with connect(database) as other:
        meanwhile(monkeypatch, switch, "locked", lambda: retire.retire(other, tables, "4", 0), after=False)
        with pytest.raises(UsageError, match="no model 'hashing/4' is registered"):
            switch.activate(connection, tables, "4")
    assert registry.default(connection, tables).name == "hashing/8"
    consistent(connection, tables)


def test_setup_of_one_that_shares_the_column_that_goes(
    connection: Connection, tables: ModelTables, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The column stays for it."""
    retire.retire(connection, tables, "4")
    other_model = [Wanted("hashing/other", HashingEmbedder(4).space)]
    with connect(database) as other:
        meanwhile(monkeypatch, retire, "_delete", lambda: setup.set_up(other, tables, other_model))
        retire.retire(connection, tables, "4", 0)
    assert [m.name for m in registry.listed(connection, tables)] == ["hashing/8", "hashing/other"]
    consistent(connection, tables)


def test_what_is_written_while_vectors_go(
    connection: Connection, tables: ModelTables, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goes too: no row is left of a model that is no more."""
    setup.set_up(connection, tables, [Wanted("hashing/other", HashingEmbedder(4).space)])
    retire.retire(connection, tables, "hashing/4")
    with connect(database) as other:
        meanwhile(
            monkeypatch,
            retire,
            "_delete",
            lambda: other.execute(
                "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) VALUES (1, 2, '[1,2,3,4]')"
            ),
        )
        retire.retire(connection, tables, "hashing/4", 0)
    assert rows(connection) == [(1, 3)]
    consistent(connection, tables)


def test_the_partial_index_goes_with_its_model(connection: Connection, tables: ModelTables) -> None:
    """Though the column stays for the model that it was shared with."""
    setup.set_up(connection, tables, [Wanted("hashing/other", HashingEmbedder(4).space)])
    retire.retire(connection, tables, "hashing/other")
    retire.retire(connection, tables, "hashing/other", 0)
    names = connection.execute("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%%hnsw%%' ORDER BY 1").fetchall()
    assert names == [("idx_embeddings_hnsw_4",), ("idx_embeddings_hnsw_8",)]


def test_two_setups_at_once(
    connection: Connection, tables: ModelTables, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same model: it is there once."""
    with connect(database) as other:
        meanwhile(monkeypatch, setup, "locked", lambda: setup.set_up(other, tables, wanted(6)), after=False)
        setup.set_up(connection, tables, wanted(6))
    consistent(connection, tables)


def test_a_view_on_the_column_stops_it_before_a_vector_is_lost(connection: Connection, tables: ModelTables) -> None:
    """What PostgreSQL would not drop is told first."""
    connection.execute("CREATE VIEW ours AS SELECT embedding_4 FROM chunk_embeddings")
    retire.retire(connection, tables, "4")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        retire.retire(connection, tables, "4", 0)
    assert rows(connection) == [(1, 3), (2, 3)]


def test_a_killed_rename_and_a_long_transaction(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions that were held parsed for a rename that was killed keep nobody from dropping a column."""
    monkeypatch.setattr(superseded, "WAIT", 0.1)
    connection.execute(FIXED)
    tables, _ = init.initialise(
        connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space), replace_unique=True)
    )
    setup.set_up(connection, tables, wanted(4))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rename, "wait_for_transactions", killed)
    with pytest.raises(KeyboardInterrupt):
        rename.rename(connection, tables, True)
    with psycopg.connect(database) as long:
        long.execute("SELECT 1")
        retire.retire(connection, tables, "4")
        retire.retire(connection, tables, "4", 0)
    assert [m.name for m in registry.listed(connection, tables)] == ["hashing/8"]


def test_a_killed_rename_is_ended_by_the_next(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way that goes: no function is left held parsed."""
    connection.execute(FIXED)
    tables, _ = init.initialise(
        connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space), replace_unique=True)
    )

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    parsed = "SELECT count(*) FROM pg_proc WHERE proname ~ '^search_chunks' AND prosqlbody IS NOT NULL"
    with monkeypatch.context() as patch:
        patch.setattr(rename, "_rename", killed)
        with pytest.raises(KeyboardInterrupt):
            rename.rename(connection, tables, True)
    assert connection.execute(parsed).fetchone() == (1,)
    rename.rename(connection, tables, False)
    assert connection.execute(parsed).fetchone() == (0,)


def test_back_without_a_rename_before(connection: Connection) -> None:
    """rename=false leaves what was never renamed, whatever other models there are."""
    connection.execute(FIXED)
    tables, _ = init.initialise(
        connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space), replace_unique=True)
    )
    setup.set_up(connection, tables, wanted(4))
    assert rename.rename(connection, tables, False) == []
    rollback.roll_back(connection, tables)


WITH_CHUNKS = """
CREATE TABLE documents (id int PRIMARY KEY);
CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int REFERENCES documents, content text, embedding vector(8));
INSERT INTO documents VALUES (1);
INSERT INTO document_chunks SELECT n, 1, 'text', '[1,2,3,4,5,6,7,8]' FROM generate_series(1, 3) n
"""


def test_back_without_a_rename_before_with_chunks(connection: Connection) -> None:
    """Nor the column of another model, where that of the tables stands with the chunks."""
    connection.execute(WITH_CHUNKS)
    tables, _ = init.initialise(connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space)))
    setup.set_up(connection, tables, wanted(4))
    assert rename.rename(connection, tables, False) == []
    assert [m.column for m in registry.listed(connection, tables)] == ["embedding", "embedding_4"]


def test_two_columns_of_one_name(connection: Connection) -> None:
    """Of the chunks, and of the vectors: each is that of its model."""
    connection.execute(WITH_CHUNKS)
    tables, _ = init.initialise(connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space)))
    setup.set_up(connection, tables, [Wanted("hashing/other", HashingEmbedder(8).space)])
    rename.rename(connection, tables, True)
    assert [m.column for m in registry.listed(connection, tables)] == ["embedding_8", "embedding_8"]
    rename.rename(connection, tables, False)
    assert [m.column for m in registry.listed(connection, tables)] == ["embedding", "embedding_8"]


def test_the_default_of_a_shared_column(connection: Connection) -> None:
    """Goes with its model: an INSERT that names no model fails, and is not lost among rows that nobody searches."""
    connection.execute(FIXED)
    tables, _ = init.initialise(
        connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space), replace_unique=True)
    )
    setup.set_up(connection, tables, [Wanted("hashing/other", HashingEmbedder(8).space)])
    switch.activate(connection, tables, "other", True)
    retire.retire(connection, tables, "hashing/8")
    retire.retire(connection, tables, "hashing/8", 0)
    with pytest.raises(psycopg.errors.NotNullViolation):
        connection.execute("INSERT INTO chunk_embeddings (chunk_id, embedding) VALUES (1, '[1,2,3,4,5,6,7,8]')")


def test_rollback_loses_no_vector_that_comes_meanwhile(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after the first look is seen before anything is dropped."""
    connection.execute(FIXED.replace("CONSTRAINT one UNIQUE ", ""))
    tables, _ = init.initialise(
        connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space), replace_unique=True)
    )
    setup.set_up(connection, tables, wanted(4))
    with connect(database) as other:
        meanwhile(
            monkeypatch,
            rollback,
            "_first",
            lambda: other.execute(
                "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) VALUES (1, 2, '[1,2,3,4]')"
            ),
        )
        with pytest.raises(UsageError, match="1 vector of hashing/4 would be lost"):
            rollback.roll_back(connection, tables)


def test_an_init_that_is_killed_before_its_keys_are_swapped(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goes on with that when it is called again, and a chunk may have a row of each model; a rollback has the narrow key again."""
    connection.execute(FIXED)
    asked = Asked(source=Source("hashing/8", HashingEmbedder(8).space), replace_unique=True)
    sent = init.send_one_by_one

    def killed(*args: Any) -> Any:
        yield next(sent(*args))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(init, "send_one_by_one", killed)
        with pytest.raises(KeyboardInterrupt):
            init.initialise(connection, asked)
    tables, _ = init.initialise(connection, asked)
    setup.set_up(connection, tables, wanted(4))
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) SELECT id, 2, '[1,2,3,4]' FROM document_chunks"
    )
    assert rows(connection) == [(1, 3), (2, 3)]
    retire.retire(connection, tables, "hashing/4")
    retire.retire(connection, tables, "hashing/4", 0)
    rollback.roll_back(connection, tables)
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO chunk_embeddings (chunk_id, embedding) VALUES (1, '[1,2,3,4,5,6,7,8]')")
