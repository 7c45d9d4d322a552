"""INSERTs of an application's vectors beside a run of multi-model: what the triggers cost that count vectors, and that have such an
INSERT win."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from psycopg import sql

from benchmarks import fixtures
from benchmarks.figures import Figure
from benchmarks.turns import environment
from flows.forms.multi_model import MultiModel
from tasks.runs import registry
from tasks.stores.postgres import wire
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.pipeline import build
from tests.helpers.served_tables import Served

ROWS, STATEMENTS, TURNS = 10_000, 300, 3
INDEXED = 1_000
"""Rows of a COPY where each goes into an HNSW index too."""
MODELS = ("hashing/384", "hashing/1536")
TRIGGERS = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'chunk_embeddings'::regclass AND NOT tgisinternal"


class _Undone(Exception):
    """Takes back what was inserted."""


def writes(url: str) -> Iterator[Figure]:
    """How much longer INSERTs and COPYs take with the triggers than without, in turns, for both models of a run, without an HNSW index
    and with it."""
    home = fixtures.PLACE.absolute() / "home-writes"
    shutil.rmtree(home, ignore_errors=True)
    with environment(DATABASE_URL=url, VECFERRY_HOME=str(home)), connect(url, "vecferry benchmark") as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("DROP TABLE IF EXISTS chunk_embeddings, document_chunks, documents")
        served = Served(connection, MODELS[0], documents=10)
        served.init(MODELS[1])
        build(f"writes-{time.time_ns()}", MultiModel, target_model=MODELS[1])
        connection.execute(
            "INSERT INTO document_chunks (document_id, chunk_index) SELECT min(id), n FROM documents, generate_series(100, %s) n "
            "GROUP BY n",
            (99 + ROWS,),
        )
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'chunk_embeddings' AND indexdef LIKE '%hnsw%'"
        )
        indexes: dict[str, str] = dict(connection.execute(query).fetchall())
        for name in indexes:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        for model in MODELS:
            yield from _of_model(connection, served, model, "no HNSW index", ROWS)
        for definition in indexes.values():
            connection.execute(definition)
        for model in MODELS:
            yield from _of_model(connection, served, model, "an HNSW index", INDEXED)
    shutil.rmtree(home, ignore_errors=True)


def _of_model(connection: Connection, served: Served, name: str, index: str, rows: int) -> Iterator[Figure]:
    model = registry.named(connection, served.tables, name)
    query = "SELECT id FROM document_chunks WHERE chunk_index >= 100 ORDER BY id LIMIT %s"
    keys = [key for (key,) in connection.execute(query, (rows,)).fetchall()]
    matrix = np.random.default_rng(3).standard_normal((rows, model.dimensions)).astype(np.float32)
    packed = [[key.to_bytes(8, "big") for key in keys], [model.number.to_bytes(8, "big")] * rows]
    packed.append(wire.pack(matrix, "vector"))
    into = sql.SQL("chunk_embeddings (chunk_id, model_id, {})").format(sql.Identifier(model.column))
    insert = sql.SQL("INSERT INTO {} VALUES (%s, {}, %s)").format(into, sql.Literal(model.id))
    texts = ["[" + ",".join(f"{x:.5g}" for x in vector) + "]" for vector in matrix[:STATEMENTS]]

    def one_by_one() -> None:
        for key, text in zip(keys, texts, strict=False):
            connection.execute(insert, (key, text))

    for what, count, write in (
        ("COPY", rows, lambda: wire.copy_rows(connection, into, packed)),
        ("INSERT", STATEMENTS, one_by_one),
    ):
        seconds = np.array([_turn(connection, write) for _ in range(TURNS)])
        bare, counted, both = 1e6 * np.median(seconds, axis=0) / count
        share = float(np.median(seconds[:, 2] / seconds[:, 0]))
        each = f"{bare:,.0f} µs a row, {counted:,.0f} µs with the counters, {both:,.0f} µs with both"
        yield Figure(
            f"{what} of {model.dimensions}-d vectors beside a run, {index}", count, share, unit=" ×", note=each
        )


def _turn(connection: Connection, write: Callable[[], object]) -> list[float]:
    """Seconds without the triggers, with those that count, and with all; the rows are taken back."""
    seconds = []
    names = [name for (name,) in connection.execute(TRIGGERS).fetchall()]
    for on in ([], [name for name in names if not name.endswith("_room")], names):
        for name in names:
            state = sql.SQL("ENABLE ALWAYS" if name in on else "DISABLE")
            change = sql.SQL("ALTER TABLE chunk_embeddings {} TRIGGER {}").format(state, sql.Identifier(name))
            connection.execute(change)
        with suppress(_Undone), connection.transaction():
            started = time.perf_counter()
            write()
            seconds.append(time.perf_counter() - started)
            raise _Undone
        connection.execute("VACUUM chunk_embeddings")
    return seconds
