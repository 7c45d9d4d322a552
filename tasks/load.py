"""Load: the snapshot's parts into shadow tables, by binary COPY, before any key or index is there."""

import json
import time
from typing import Any

import pyarrow as pa
from prefect import task
from psycopg import sql

from tasks import batches, ledger, quarantine, work
from tasks.ledger import Batch
from tasks.plan import SCHEMA, Target
from tasks.retrying import RETRYING
from tasks.run import Run, open_run
from tasks.snapshot import part_of
from tasks.stores.connection import Connection
from tasks.stores.postgres import copy_in, create_table
from tasks.vectors import embedded


def prepare(run: Run) -> int:
    """Makes the shadow tables that are missing and a pending batch for every part; returns how many are pending."""
    with run.connection() as connection:
        for target in run.plan.targets:
            if target.mode != "sync":
                _make_shadow(run, connection, target)
        parts = ledger.batches(connection, run.run_id, "snapshot")
        ledger.add(connection, run.run_id, "load", [(b.number, {"target": b.detail["target"]}) for b in parts])
        return sum(b.status != "done" for b in ledger.batches(connection, run.run_id, "load"))


def load(run: Run, numbers: list[int]) -> work.Tally:
    """Loads these batches. A batch that was loaded before is replaced, so that naming it again is safe."""
    with run.connection() as connection:
        parts = {
            b.number: part_of(b) for b in ledger.batches(connection, run.run_id, "snapshot") if b.number in set(numbers)
        }

    def one(connection: Connection, batch: Batch) -> int:
        started, target = time.perf_counter(), run.plan.targets[batch.detail["target"]]
        page, refused = embedded(run, target, batches.read_part(run.path("snapshot"), parts[batch.number]))
        page, rejected = quarantine.sift(connection, page, target.layout, run.plan.request.nul, refused)
        if rejected:
            quarantine.keep(run, "load", batch.number, rejected)
        with connection.transaction():
            if ledger.is_done(connection, run.run_id, "load", batch.number):
                return 0
            if batch.rows:
                _delete(connection, target, page)
            copy_in(connection, target.hidden.identifier, page, target.type)
            ledger.done(
                connection,
                run.run_id,
                "load",
                batch.number,
                rows=page.num_rows,
                quarantined=rejected.num_rows if rejected else 0,
                seconds=time.perf_counter() - started,
            )
        return page.num_rows

    return work.through(run, "load", numbers, one)


def _make_shadow(run: Run, connection: Connection, target: Target) -> None:
    with connection.transaction():
        created = connection.execute(
            "INSERT INTO vecferry.relation (table_schema, table_name, run_id, target, role, source, space) "
            "VALUES (%s, %s, %s, %s, 'shadow', %s::text::jsonb, %s) ON CONFLICT DO NOTHING",
            (SCHEMA, target.shadow, run.run_id, target.number, json.dumps(source_of(run, target)), target.space),
        )
        if created.rowcount:
            create_table(connection, target.hidden)


def source_of(run: Run, target: Target) -> dict[str, Any]:
    """What identifies the collection that a table holds, for a later sync to compare."""
    return {"source": run.plan.request.source, "collection": target.collection.name}


def _delete(connection: Connection, target: Target, page: pa.Table) -> None:
    query = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(target.hidden.identifier)
    connection.execute(query, (page.column("id").to_pylist(),))


@task(name="prepare-load", task_run_name="make shadow tables", **RETRYING)
def prepare_task(run_id: str, database: str) -> int:
    return prepare(open_run(run_id, database))


@task(name="load", task_run_name="load batches {first}–{last}", **RETRYING)
def load_task(run_id: str, database: str, numbers: list[int], first: int, last: int) -> work.Tally:
    return load(open_run(run_id, database), numbers)
