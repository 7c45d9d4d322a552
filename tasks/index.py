"""Index: key, HNSW and GIN on loaded shadow tables, with the memory and the workers that the build can use."""

import os
import time
from typing import Any
from uuid import UUID

import psutil
from prefect import task
from psycopg import errors, sql

from sql import statement
from tasks import artifacts, ledger, plan
from tasks.plan import Target
from tasks.retrying import RETRYING
from tasks.run import Run, open_run
from tasks.stores import pgvector
from tasks.stores.connection import Connection, classified
from tasks.stores.postgres import create_index

SMALLEST_MEMORY = 64 << 20
MEMORY_SHARE = 0.5
"""Of the machine's free memory; the rest is for the page cache and everybody else."""


def key(run: Run) -> int:
    """The primary key of every shadow table that lacks one; returns how many were made. Catching up finds rows by it, so
    it comes right after the load."""
    made = 0
    with run.connection() as connection:
        for target in run.plan.targets:
            name = index_names(run.run_id, target)["key"]
            if target.mode == "sync" or name in _existing(connection, target):
                continue
            with classified(f"key of {target.name}"):
                connection.execute(statement("expand_primary_key", **_where(target), constraint=name))
            made += 1
    return made


def index(run: Run, number: int) -> dict[str, Any]:
    """Builds what the target's table lacks and returns how: memory, workers, seconds. Nothing that is there is rebuilt."""
    target = run.plan.targets[number]
    if target.mode == "sync":
        return {}
    with run.connection() as connection, classified(f"index of {target.name}"):
        if ledger.is_done(connection, run.run_id, "index", number):
            return {}
        started = time.perf_counter()
        there = _existing(connection, target)
        names = index_names(run.run_id, target)
        memory, workers = 0, 0
        if names["hnsw"] not in there:
            memory, workers = _build_hnsw(run, connection, target, names["hnsw"])
        if names["gin"] not in there:
            connection.execute(statement("expand_gin", **_where(target), index=names["gin"]))
        connection.execute(sql.SQL("ANALYZE {}").format(target.hidden.identifier))
        seconds = time.perf_counter() - started
        how = {"memory": memory, "workers": workers, "index_type": target.layout.index_type, "target": number}
        ledger.done(connection, run.run_id, "index", number, rows=0, seconds=seconds, detail=how)
        return {**how, "seconds": seconds}


def index_names(run_id: str, target: Target) -> dict[str, str]:
    """Names of a table's key and indexes; they carry the run's suffix because tables change schemas with them."""
    stem, end = plan.short(target.table, 40), plan.suffix(run_id, target.name)
    return {kind: f"{stem}_{word}_{end}" for kind, word in (("key", "pkey"), ("hnsw", "hnsw"), ("gin", "metadata"))}


def settings_for(connection: Connection, rows: int, target: Target) -> tuple[int, int]:
    """maintenance_work_mem in bytes and parallel workers beside the leader, for this many rows on this server."""
    layout = target.layout
    assert layout.index_type
    assert layout.dimensions
    needed = pgvector.graph_bytes(rows, layout.dimensions, _m(target), layout.index_type)
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


def progress(connection: Connection, target: Target) -> tuple[str, float] | None:
    """Phase and share done of the index build that is going on, or None."""
    row = connection.execute(
        "SELECT phase, coalesce(tuples_done::float / nullif(tuples_total, 0), blocks_done::float / nullif(blocks_total, 0), 0) "
        "FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s)",
        (target.hidden.identifier.as_string(),),
    ).fetchone()
    return (row[0], float(row[1])) if row else None


def _build_hnsw(run: Run, connection: Connection, target: Target, name: str) -> tuple[int, int]:
    if target.layout.index_type is None:
        return 0, 0
    counted = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(target.hidden.identifier)).fetchone()
    assert counted
    memory, workers = settings_for(connection, counted[0], target)
    collection = target.collection
    m = _m(target)
    # pgvector wants ef_construction ≥ 2m and at most 1000 (hnsw.h).
    ef_construction = min(1000, max(collection.ef_construction, 2 * m, 4))
    for parallel in dict.fromkeys((workers, 0)):
        try:
            with connection.transaction():
                connection.execute(
                    sql.SQL("SET LOCAL maintenance_work_mem = {}").format(sql.Literal(f"{memory >> 10}kB"))
                )
                connection.execute(
                    sql.SQL("SET LOCAL max_parallel_maintenance_workers = {}").format(sql.Literal(parallel))
                )
                table = target.hidden.identifier
                # Without it the planner takes fewer workers for what it believes is a small table.
                connection.execute(
                    sql.SQL("ALTER TABLE {} SET (parallel_workers = {})").format(table, sql.Literal(parallel))
                )
                create_index(connection, target.hidden, name, m, ef_construction)
                connection.execute(sql.SQL("ALTER TABLE {} RESET (parallel_workers)").format(table))
            return memory, parallel
        except errors.DiskFull:
            if parallel == 0:  # a parallel build keeps its graph in /dev/shm, which containers make small
                raise
    raise AssertionError("unreachable")


def _m(target: Target) -> int:
    return min(100, max(2, target.collection.m))  # pgvector's range of m (hnsw.h)


def _where(target: Target) -> dict[str, Any]:
    return {"schema": target.hidden.schema, "table": target.hidden.name}


def _existing(connection: Connection, target: Target) -> set[str]:
    rows = connection.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = to_regclass(%s) AND i.indisvalid",
        (target.hidden.identifier.as_string(),),
    ).fetchall()
    return {name for (name,) in rows}


def _share(run: Run, number: int) -> float:
    """How far all targets' indexes are, from 0 to 1."""
    with run.connection() as connection:
        at = progress(connection, run.plan.targets[number])
    return (number + (at[1] if at else 0.0)) / len(run.plan.targets)


def _setting(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT setting FROM pg_settings WHERE name = %s", (name,)).fetchone()
    assert row
    return str(row[0])


@task(name="key", task_run_name="make keys", **RETRYING)
def key_task(run_id: str, database: str) -> int:
    return key(open_run(run_id, database))


@task(name="index", task_run_name="index {table}", **RETRYING)
def index_task(run_id: str, database: str, number: int, table: str, bar: UUID | None) -> dict[str, Any]:
    run = open_run(run_id, database)
    with artifacts.following(bar, lambda: _share(run, number)):
        return index(run, number)
