"""The counters of what models cover are equal to a count, whoever writes meanwhile, and however."""

import random
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import coverage
from tasks.shadows.postgres.models import init, setup
from tasks.shadows.postgres.models.init import Asked
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables

VECTORS = {1: ("embedding_8", "[1,2,3,4,5,6,7,8]"), 2: ("embedding_4", "[1,2,3,4]"), 3: ("embedding_4", "[4,3,2,1]")}
STATEMENTS = (
    "INSERT INTO document_chunks (document_id, chunk_index, content) SELECT 1, {n} * 100 + i, 'text' FROM generate_series(1, 5) i "
    "ON CONFLICT DO NOTHING",
    "DELETE FROM document_chunks WHERE id % 11 = {n} % 11 AND id > 5",
    "UPDATE document_chunks SET content = CASE content WHEN '' THEN 'text' ELSE '' END WHERE id % 5 = {n} % 5",
    "UPDATE document_chunks SET metadata = '{{}}' WHERE id % 3 = 0",
    "INSERT INTO chunk_embeddings (chunk_id, model_id, {column}) SELECT id, {model}, '{vector}' FROM document_chunks WHERE id % 2 = 0 "
    "ON CONFLICT (chunk_id, model_id) DO UPDATE SET {column} = excluded.{column}",
    "UPDATE chunk_embeddings SET {column} = NULL WHERE model_id = {model} AND id % 3 = 0",
    "UPDATE chunk_embeddings SET {column} = '{vector}' WHERE model_id = {model} AND {column} IS NULL",
    "DELETE FROM chunk_embeddings WHERE model_id = {model} AND id % 4 = 1",
)
COUNTED = (
    "SELECT (SELECT count(*) FROM document_chunks WHERE content <> ''), "
    + ", ".join(
        f"count(*) FILTER (WHERE model_id = {model} AND {column} IS NOT NULL)" for model, (column, _) in VECTORS.items()
    )
    + " FROM chunk_embeddings"
)


@pytest.fixture
def tables(connection: Connection) -> ModelTables:
    """Three models, two of one column, over a few chunks."""
    tables, _ = init.initialise(connection, Asked())
    eight, four = HashingEmbedder(8).space, HashingEmbedder(4).space
    setup.set_up(connection, tables, [Wanted("hashing/8", eight), Wanted("hashing/4", four), Wanted("a/4", four)])
    connection.execute("INSERT INTO documents (id) VALUES (1)")
    return tables


def counters(connection: Connection, tables: ModelTables) -> tuple[int, ...]:
    covered = coverage.covered(connection, tables)
    return (covered[1].chunks, *(covered[number].with_vector for number in VECTORS))


def statements(seed: int, count: int) -> Iterator[str]:
    rng = random.Random(seed)
    for n in range(count):
        model = rng.choice(list(VECTORS))
        column, vector = VECTORS[model]
        yield rng.choice(STATEMENTS).format(n=n * 7 + seed, model=model, column=column, vector=vector)


def write(database: str, seed: int, level: psycopg.IsolationLevel) -> None:
    """Transactions of one to three statements; some are taken back, and some lose against others."""
    rng = random.Random(seed)
    with psycopg.connect(database) as connection:
        connection.isolation_level = level
        for statement in statements(seed, 60):
            try:
                connection.execute(statement)
            except psycopg.OperationalError:  # a deadlock of theirs, or two that change one row of one snapshot
                connection.rollback()
            chosen = rng.random()
            if chosen < 0.5:
                connection.commit()
            elif chosen < 0.6:
                connection.rollback()


def test_counters_are_equal_to_a_count_under_concurrent_writers(
    connection: Connection, database: str, tables: ModelTables
) -> None:
    """Inserts, updates, upserts, deletes, cascades and rollbacks of several sessions at once, of two isolation levels, while others
    fold and read: each reader sees a count of its own snapshot."""
    levels = (
        psycopg.IsolationLevel.READ_COMMITTED,
        psycopg.IsolationLevel.READ_COMMITTED,
        psycopg.IsolationLevel.REPEATABLE_READ,
    )
    threads = [threading.Thread(target=write, args=(database, seed, level)) for seed, level in enumerate(levels)]
    for thread in threads:
        thread.start()
    looks = 0
    while any(thread.is_alive() for thread in threads):
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            assert counters(connection, tables) == connection.execute(COUNTED).fetchone()
        connection.execute("SELECT vecferry.fold_coverage(1)")
        looks += 1
    assert looks
    assert counters(connection, tables) == connection.execute(COUNTED).fetchone()
    assert min(counters(connection, tables)[:1]) > 0
    connection.execute("TRUNCATE document_chunks CASCADE")
    assert counters(connection, tables) == (0, 0, 0, 0)


def test_what_was_there_before_is_counted_while_others_write(connection: Connection, tables: ModelTables) -> None:
    """The base is what a snapshot shows beyond what the triggers noted; counting once more adds nothing."""
    for statement in statements(1, 20):
        connection.execute(statement)
    truth = connection.execute(COUNTED).fetchone()
    connection.execute("DELETE FROM vecferry.coverage WHERE random() < 0.5")
    coverage.count_once(connection, tables)
    coverage.count_once(connection, tables)
    assert counters(connection, tables) == truth


def test_who_writes_needs_no_rights_in_our_schema(connection: Connection, tables: ModelTables) -> None:
    """A role that may write to the tables alone is counted, and cannot call what counts."""
    connection.execute(
        "DO $$ BEGIN CREATE ROLE writer; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "GRANT INSERT, SELECT ON document_chunks, chunk_embeddings TO writer; SET ROLE writer;"
        "INSERT INTO document_chunks (id, document_id, chunk_index, content) VALUES (1000, 1, 1000, 'text');"
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) VALUES (1000, 2, '[1,2,3,4]')"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT vecferry.fold_coverage(1)")
    connection.execute("RESET ROLE")
    assert counters(connection, tables) == (1, 0, 1, 0)
