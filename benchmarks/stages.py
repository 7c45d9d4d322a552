"""Snapshot, load and index of chroma-to-pgvector beside a bare version of the same work."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import chromadb
import orjson
import psycopg
import pyarrow as pa
from pgvector.psycopg import register_vector
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from benchmarks import fixtures
from benchmarks.figures import Figure
from benchmarks.turns import WORKERS, in_turns, slices, timed, together
from flows.forms.chroma_to_pgvector import ChromaToPgvector
from tasks import load, snapshot
from tasks.begin import begin
from tasks.runs import checkpoints, dataset
from tasks.runs.checkpoints import Batch
from tasks.runs.details import Cut
from tasks.runs.run import Run, open_run
from tasks.stores.chroma import pages
from tasks.stores.interface import vectors
from tasks.stores.postgres import hnsw
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table, create_index, create_table

INCLUDE: Any = ["embeddings", "documents", "metadatas", "uris"]
MEGABYTE = 1 << 20


def begun(port: int, run_id: str) -> Run:
    """A new run over the collection behind ``port``, as the flow begins it."""
    parameters = ChromaToPgvector.model_validate({"chroma": {"host": "127.0.0.1", "port": port}})
    begin(parameters.request(), run_id, {"source"})
    return open_run(run_id, parameters.database)


def snapshot_figures(run: Run, port: int, rows: int) -> list[Figure]:
    """Takes the snapshot, and reads the same pages with bare ``collection.get`` loops, one and as many as workers."""
    client = chromadb.HttpClient("127.0.0.1", port, settings=chromadb.Settings(anonymized_telemetry=False))
    collection = client.get_collection(fixtures.COLLECTION, embedding_function=None)
    page = min(pages.PAGE_ROWS, pages.PAGE_NUMBERS // fixtures.DIMENSIONS)

    def bare(ids: list[str]) -> None:
        for at in range(0, len(ids), page):
            collection.get(ids=ids[at : at + page], include=INCLUDE)

    listing = timed(lambda: snapshot.list_ids(run, 0))
    bare_listing = timed(lambda: collection.get(include=[]))
    batches = _batches(run)
    ids = {b.number: _ids(run, b) for b in batches}

    def loops(chunks: list[list[int]], workers: int) -> None:
        jobs: list[Callable[[], Any]] = [partial(bare, ids[number]) for chunk in chunks for number in chunk]
        together(jobs, workers)

    own, one, many = in_turns(
        slices([b.number for b in batches]),
        lambda chunks: together([partial(snapshot.snapshot, run, chunk) for chunk in chunks], WORKERS),
        lambda chunks: loops(chunks, 1),
        lambda chunks: loops(chunks, WORKERS),
    )
    own += listing + timed(lambda: snapshot.finish(run))
    one, many = one + bare_listing, many + bare_listing
    speed = f"{rows / own:,.0f} rows/s, bare loop {rows / one:,.0f}"
    return [
        Figure("snapshot: speed to a bare `get` loop", rows, one / own, 0.8, "≥", note=speed),
        Figure(
            f"snapshot: speed to {WORKERS} bare `get` loops at once",
            rows,
            many / own,
            note=f"{WORKERS} loops {rows / many:,.0f} rows/s; the snapshot has {WORKERS} workers",
        ),
    ]


def load_figures(run: Run, url: str, rows: int) -> list[Figure]:
    """Loads the snapshot, and the same rows with a bare COPY: one connection, Python rows that lie ready in memory."""
    load.expand(run)
    load.prepare(run)
    parts = {b.number: b.detail.written for b in _batches(run)}
    with run.kept_open(), run.connection() as ours_connection, psycopg.connect(url, autocommit=True) as connection:
        register_vector(connection)
        target = run.plan.targets[0]
        table = Table("public", "bare", target.place.layout)
        create_table(ours_connection, table)
        bare_seconds: list[float] = []

        def bare(chunks: list[list[int]]) -> None:
            ready: list[Any] = []
            for chunk in chunks:
                for number in chunk:
                    ready += _python_rows(dataset.read_part(run.path("snapshot"), parts[number]))
            bare_seconds.append(timed(lambda: _copy(connection, table, ready)))

        (own, _) = in_turns(
            slices(sorted(parts)),
            lambda chunks: together([partial(load.load, run, chunk) for chunk in chunks], WORKERS),
            bare,
        )
        connection.execute("DROP TABLE public.bare")
    one = sum(bare_seconds)
    speed = f"{rows / own:,.0f} rows/s, bare COPY {rows / one:,.0f}"
    return [Figure("load: speed to a bare binary COPY", rows, one / own, 0.7, "≥", note=speed)]


def index_figures(run: Run, rows: int) -> list[Figure]:
    """Builds the HNSW index with the settings we compute and with settings by hand, the first and the best twice."""
    target = run.plan.targets[0]
    with run.connection() as connection:
        memory, workers = hnsw.settings_for(connection, rows, target.place.layout, hnsw.limited(target.collection.m))

        def own_build() -> float:
            seconds = timed(lambda: hnsw.build(connection, target.place.hidden, "bench", target.collection))
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(target.place.hidden.schema, "bench")))
            return seconds

        by_us, by_hand = own_build(), dict[tuple[int, int], float]()

        def sweep(settings: Iterator[tuple[int, int]]) -> tuple[int, int]:
            for setting in settings:
                # What is slower than the best so far by this much cannot become the best.
                limit = 1.2 * min([by_us, *by_hand.values()])
                by_hand[setting] = _built(run, connection, *setting, limit)
            return min(by_hand, key=lambda s: by_hand[s])

        _, best_workers = sweep((4 * memory, w) for w in (0, 1, 2, 4))
        best = sweep((m, best_workers) for m in (64 * MEGABYTE, memory, 2 * memory))
        by_us = min(by_us, own_build())
        by_hand[best] = min(by_hand[best], _built(run, connection, *best, 10 * by_us))
    hand = min(by_hand.values())
    tried = ", ".join(f"{m // MEGABYTE} MB × {w}: {_duration(s)}" for (m, w), s in by_hand.items())
    note = f"ours {memory // MEGABYTE} MB × {workers}: {by_us:.1f} s; by hand {tried}"
    return [Figure("index: time to the best settings by hand", rows, by_us / hand, 1.1, note=note)]


def _built(run: Run, connection: Connection, memory: int, workers: int, limit: float) -> float:
    """Seconds that the build takes with these settings; infinite when it is not done within ``limit``."""
    target = run.plan.targets[0]
    collection, table = (
        target.collection,
        Table(target.place.hidden.schema, target.place.hidden.name, target.place.layout),
    )
    started = time.perf_counter()
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"SET LOCAL statement_timeout = {int(limit * 1000)}")
            connection.execute(f"SET LOCAL maintenance_work_mem = '{memory // 1024}kB'")
            connection.execute(f"SET LOCAL max_parallel_maintenance_workers = {workers}")
            connection.execute(
                sql.SQL("ALTER TABLE {} SET (parallel_workers = {})").format(table.identifier, sql.Literal(workers))
            )
            create_index(connection, table, "bench", (collection.m, collection.ef_construction))
            return time.perf_counter() - started
    except errors.QueryCanceled:
        return float("inf")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds != float("inf") else "cut off"


def _python_rows(part: pa.Table) -> list[tuple[Any, ...]]:
    columns = {name: part.column(name).to_pylist() for name in ("id", "document", "metadata", "uri", "content_hash")}
    metadata = [Jsonb(orjson.loads(text)) for text in columns["metadata"]]
    embeddings = list(vectors(part))
    return list(
        zip(
            columns["id"],
            columns["document"],
            metadata,
            columns["uri"],
            embeddings,
            columns["content_hash"],
            strict=True,
        )
    )


def _copy(connection: psycopg.Connection[Any], table: Table, rows: list[tuple[Any, ...]]) -> None:
    into = sql.SQL("COPY {} (id, document, metadata, uri, embedding, content_hash) FROM STDIN (FORMAT BINARY)")
    command = into.format(table.identifier)
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(command) as copy:
        copy.set_types(["text", "text", "jsonb", "text", "vector", "bytea"])
        for row in rows:
            copy.write_row(row)


def _batches(run: Run) -> list[Batch[Cut]]:
    with run.connection() as connection:
        return checkpoints.of(connection, run.run_id, Cut)


def _ids(run: Run, batch: Batch[Cut]) -> list[str]:
    ids: list[str] = dataset.read_ids(run.path("snapshot", batch.detail.ids), batch.detail.group).to_pylist()
    return ids


def drop(run: Run) -> None:
    """Takes the tables of the run away, so that they do not lie in the way of the next measurement."""
    with run.connection() as connection:
        for target in run.plan.targets:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(target.place.hidden.identifier))
        connection.execute("DELETE FROM vecferry.relation WHERE run_id = %s", (run.run_id,))
