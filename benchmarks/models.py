"""Searches by several models of one set of tables, against the query that a person would write by hand."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from psycopg import sql

from benchmarks import fixtures
from benchmarks.figures import Figure
from tasks.embedders.interface import Space
from tasks.runs import ledger_versions, model_sets, registry
from tasks.runs.registry import Place, RegisteredModel
from tasks.serving import model_search
from tasks.serving.model_search import Wanted
from tasks.shadows.postgres import extension
from tasks.shadows.postgres.models import functions
from tasks.stores.postgres import wire
from tasks.stores.postgres.connection import Connection, Packed, connect
from tasks.stores.postgres.model_tables import Chunks, Documents, Embeddings, ModelTables

ROWS, SEARCHES, TOP_K = 50_000, 400, 10
MODELS = {"bench/alone": 384, "bench/one of two": 256, "bench/other of two": 256}
"""Dimensions of each: the last two share a column."""
BARE = """
SELECT c.id, d.id, d.title, c.content, 1 - (e.{column} <=> %b::vector) AS similarity
FROM chunk_embeddings e JOIN document_chunks c ON c.id = e.chunk_id JOIN documents d ON d.id = c.document_id
WHERE e.model_id = {number} ORDER BY e.{column} <=> %b::vector LIMIT {k}
"""


@dataclass(frozen=True)
class Served:
    """The tables, their two models, and the vectors of each, float32[n, d]."""

    tables: ModelTables
    models: list[RegisteredModel]
    vectors: list[np.ndarray]

    def probes(self, model: RegisteredModel) -> np.ndarray:
        """Vectors near to those that there are: float32[n, d], of length 1."""
        random, vectors = np.random.default_rng(11), self.vectors[self.models.index(model)]
        chosen = vectors[random.integers(0, len(vectors), SEARCHES)]
        near = chosen + 0.3 / np.sqrt(chosen.shape[1]) * random.standard_normal(chosen.shape, np.float32)
        return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def models(url: str, rows: int = ROWS) -> Iterator[Figure]:
    """The 95th percentile of a search by one model and by two, as a share of that of the hand-written query, asked in turns; and
    recall@10 against exact search, of a model alone in its column, and of one that shares it, with an index of both and of its own."""
    with connect(url, "vecferry benchmark") as connection:
        served = made(connection, rows)
        alone, shared, _ = served.models
        both = _timed(connection, served, [alone, shared])
        bare = _p95(both["bare"])
        yield Figure("hand-written query of one model, p95", rows, bare, unit=" ms", note=_note(both["bare"]))
        for what, limit in (("one model", 1.1), ("union of two", 2.2)):
            name = f"search by {what}, p95 over a hand-written query"
            yield Figure(name, rows, _p95(both[what]) / bare, limit, unit=" ×", note=_note(both[what]))
        yield _recall(connection, served, alone, "alone in its column")
        yield from _of_shared(connection, served, shared, "one index for both")
        size = shared.dimensions
        connection.execute(f"DROP INDEX idx_embeddings_hnsw_{size}")
        for model in served.models[1:]:
            connection.execute(
                f"CREATE INDEX ON chunk_embeddings USING hnsw (embedding_{size} vector_cosine_ops) WHERE model_id = {model.number}"
            )
        yield from _of_shared(connection, served, shared, "a partial index for each")


def _of_shared(connection: Connection, served: Served, model: RegisteredModel, indexed_as: str) -> Iterator[Figure]:
    seconds = _timed(connection, served, [model])
    share = _p95(seconds["one model"]) / _p95(seconds["bare"])
    what = f"search by one of two models in a column, {indexed_as}, p95 over a hand-written query"
    note = f"{_note(seconds['one model'])}; by hand p50 {np.percentile(seconds['bare'], 50) * 1000:.2f} ms"
    yield Figure(what, len(served.vectors[0]), share, 1.1, unit=" ×", note=note)
    yield _recall(connection, served, model, f"two models in its column, {indexed_as}")


def _timed(connection: Connection, served: Served, asked: list[RegisteredModel]) -> dict[str, list[float]]:
    """Seconds of each search, the kinds in turns, so that whatever else goes on meets all of them."""
    wanted, first = Wanted(TOP_K), asked[0]
    probes = [served.probes(model) for model in asked]
    by_hand = sql.SQL(BARE).format(
        column=sql.Identifier(first.column), number=sql.Literal(first.number), k=sql.Literal(TOP_K)
    )

    def bare(at: int) -> object:
        probe = Packed(wire.pack(probes[0][at : at + 1], "vector")[0])
        return connection.execute(by_hand, (probe, probe), prepare=False).fetchall()

    def one(at: int) -> object:
        return model_search.by_model(connection, served.tables, first, probes[0][at], wanted)

    def union(at: int) -> object:
        pairs = [(model, of[at]) for model, of in zip(asked, probes, strict=True)]
        return model_search.by_models(connection, served.tables, pairs, "union", wanted)

    asks: dict[str, Callable[[int], object]] = {"bare": bare, "one model": one, "union of two": union}
    seconds: dict[str, list[float]] = {kind: [] for kind in asks}
    for at in range(SEARCHES):
        for kind, ask in asks.items():
            started = time.perf_counter()
            ask(at)
            seconds[kind].append(time.perf_counter() - started)
    return {kind: of[SEARCHES // 10 :] for kind, of in seconds.items()}  # the first warm the caches


def _recall(connection: Connection, served: Served, model: RegisteredModel, note: str) -> Figure:
    vectors, shares = served.vectors[served.models.index(model)], []
    for probe in served.probes(model)[:100]:
        hits = model_search.by_model(connection, served.tables, model, probe, Wanted(TOP_K)).hits
        best = np.argpartition(-(vectors @ probe), TOP_K)[:TOP_K] + 1
        shares.append(len({hit.chunk_id for hit in hits} & set(best.tolist())) / TOP_K)
    recall = float(np.mean(shares))
    return Figure(f"recall@{TOP_K} of {model.name}", len(vectors), recall, 0.95, "≥", note=note)


def made(connection: Connection, rows: int) -> Served:
    """Tables of that many chunks, in place of those there are, with vectors of each of MODELS."""
    ledger_versions.ensure(connection)
    extension.prepare(connection)
    connection.execute("DROP TABLE IF EXISTS chunk_embeddings, document_chunks, documents")
    connection.execute("DELETE FROM vecferry.model_tables")
    connection.execute(
        "CREATE TABLE documents (id bigint PRIMARY KEY, title text, content text, metadata jsonb NOT NULL DEFAULT '{}'); "
        "CREATE TABLE document_chunks (id bigint PRIMARY KEY, document_id bigint NOT NULL REFERENCES documents, "
        "chunk_index integer NOT NULL, content text NOT NULL, metadata jsonb NOT NULL DEFAULT '{}'); "
        "CREATE TABLE chunk_embeddings (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "
        "chunk_id bigint NOT NULL REFERENCES document_chunks, model_id bigint NOT NULL, UNIQUE (chunk_id, model_id))"
    )
    for size in set(MODELS.values()):
        connection.execute(f"ALTER TABLE chunk_embeddings ADD COLUMN embedding_{size} vector({size})")
    connection.execute(
        "INSERT INTO documents SELECT n, 'document ' || n FROM generate_series(1, %(rows)s / 10) n; ".replace(
            "%(rows)s", str(rows)
        )
        + f"INSERT INTO document_chunks SELECT n, (n - 1) / 10 + 1, n %% 10, repeat('words of a chunk ', 24) "
        f"FROM generate_series(1, {rows}) n".replace("%%", "%")
    )
    tables = ModelTables(
        Documents("public", "documents", "id", "bigint", "title", "content", "metadata"),
        Chunks("public", "document_chunks", "id", "bigint", "document_id", "content", "chunk_index", "metadata"),
        Embeddings("public", "chunk_embeddings", "chunk_id", "model_id", "bigint"),
    )
    tables = model_sets.add_tables(connection, tables, "(NULL::bigint)", {})
    whole = fixtures.vectors_of(rows)
    known, vectors = list[RegisteredModel](), list[np.ndarray]()
    for at, (name, size) in enumerate(MODELS.items()):
        column = f"embedding_{size}"
        model = registry.register(
            connection, tables, name, Space("bench", name, size), Place("public", "chunk_embeddings", column)
        )
        matrix = (
            np.roll(whole, 7 * at, axis=0)[:, :size] if at < 2 else np.ascontiguousarray(whole[:, : -size - 1 : -1])
        )
        matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        into = sql.SQL("chunk_embeddings (chunk_id, model_id, {})").format(sql.Identifier(column))
        keys = [n.to_bytes(8, "big") for n in range(1, rows + 1)]
        wire.copy_rows(connection, into, [keys, [model.number.to_bytes(8, "big")] * rows, wire.pack(matrix, "vector")])
        known.append(model)
        vectors.append(np.ascontiguousarray(matrix))
    connection.execute("SET maintenance_work_mem = '1GB'")
    for size in set(MODELS.values()):
        connection.execute(
            f"CREATE INDEX idx_embeddings_hnsw_{size} ON chunk_embeddings USING hnsw (embedding_{size} vector_cosine_ops)"
        )
    with connection.transaction():
        functions.remake(connection, tables)
    connection.execute("VACUUM ANALYZE documents, document_chunks, chunk_embeddings")
    return Served(tables, known, vectors)


def _p95(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 95)) * 1000


def _note(seconds: list[float]) -> str:
    return f"p50 {np.percentile(seconds, 50) * 1000:.2f} ms, p95 {_p95(seconds):.2f} ms, {len(seconds)} searches, one at a time"
