"""Building HNSW indexes, with the memory and the workers that a build can use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from psycopg import errors, sql

from tasks.stores.interface import Built, Collection
from tasks.stores.postgres import pgvector, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table, create_index

SMALLEST_MEMORY = 64 << 20
MEMORY_SHARE = 0.5
"""Of the machine's free memory; the rest is for the page cache and everybody else."""


def settings_for(connection: Connection, rows: int, layout: pgvector.Layout, m: int) -> tuple[int, int]:
    """maintenance_work_mem in bytes and parallel workers beside the leader, for this many rows on this server."""
    assert layout.index_type
    assert layout.dimensions
    needed = pgvector.graph_bytes(rows, layout.dimensions, limited(m), layout.index_type)
    current, buffers, parallel = (
        int(_setting(connection, name)) for name in ("maintenance_work_mem", "shared_buffers", "max_parallel_workers")
    )
    if connection.info.host.startswith("/") or connection.info.host in ("localhost", "127.0.0.1", "::1"):
        spare, cores = int(psutil.virtual_memory().available * MEMORY_SHARE), os.cpu_count() or 1
    else:
        # A remote server's free memory is not visible; its owner sized shared_buffers at a quarter of it or less.
        spare, cores = buffers * 8192 // 2, parallel
    memory = max(current * 1024, SMALLEST_MEMORY, min(needed, spare))
    return memory, max(0, min(cores - 1, parallel, 7))


def progress(connection: Connection, application: str) -> tuple[str, float] | None:
    """Phase and share done of the index build that goes on in connections of that application_name, or None."""
    row = connection.execute(
        "SELECT p.phase, coalesce(p.tuples_done::float / nullif(p.tuples_total, 0), "
        "p.blocks_done::float / nullif(p.blocks_total, 0), 0) FROM pg_stat_progress_create_index p "
        "JOIN pg_stat_activity a USING (pid) WHERE a.application_name = %s",
        (application,),
    ).fetchone()
    return (row[0], float(row[1])) if row else None


def build(
    connection: Connection, table: Table, name: str, collection: Collection, concurrently: bool = False, only: str = ""
) -> Built:
    """The index called ``name`` on the table's vectors, with the collection's m and ef_construction, unless it is there;
    returns how it was built. ``concurrently`` lets others write to the table meanwhile, and takes longer; ``only`` is SQL of the
    rows that it has."""
    layout = table.layout
    if layout.index_type is None or name in existing(connection, table):
        return Built(index_type=layout.index_type)
    graph = parameters(collection)
    memory, workers = settings_for(connection, relations.count(connection, table.identifier), layout, graph[0])
    for parallel in dict.fromkeys((workers, 0)):
        try:
            with _allowed(connection, memory, parallel):
                if concurrently:
                    create_index(connection, table, name, graph, True, only)
                else:
                    with connection.transaction():
                        # Else the planner takes no workers for what it believes is a small table.
                        connection.execute("SET LOCAL min_parallel_table_scan_size = 0")
                        create_index(connection, table, name, graph)
            return Built(memory, parallel, layout.index_type)
        except errors.DiskFull:
            if parallel == 0:  # a parallel build keeps its graph in /dev/shm, which containers make small
                raise
    raise AssertionError("unreachable")


def parameters(collection: Collection) -> tuple[int, int]:
    """The collection's m and ef_construction within pgvector's range: it wants ef_construction ≥ 2m and at most 1000
    (hnsw.h)."""
    m = limited(collection.m)
    return m, min(1000, max(collection.ef_construction, 2 * m, 4))


def limited(m: int) -> int:
    """``m`` within pgvector's range (hnsw.h)."""
    return min(100, max(2, m))


def existing(connection: Connection, table: Table) -> set[str]:
    """Names of the table's indexes that are valid."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = to_regclass(%s) AND i.indisvalid",
        (table.identifier.as_string(),),
    ).fetchall()
    return {name for (name,) in rows}


@contextmanager
def _allowed(connection: Connection, memory: int, parallel: int) -> Iterator[None]:
    """For the session: CONCURRENTLY runs in no transaction that SET LOCAL could belong to."""
    connection.execute(sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(f"{memory >> 10}kB")))
    connection.execute(sql.SQL("SET max_parallel_maintenance_workers = {}").format(sql.Literal(parallel)))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("RESET maintenance_work_mem; RESET max_parallel_maintenance_workers")


def _setting(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT setting FROM pg_settings WHERE name = %s", (name,)).fetchone()
    assert row
    return str(row[0])
