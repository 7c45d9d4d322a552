"""Snapshot: the source as an immutable Parquet dataset. It is the backup, and what everything after is made from.

Chroma and Qdrant have no snapshot to read from, and paging by offset while others write skips rows. So the ids are
listed once, then fetched by id; ids that appeared meanwhile are listed again, until a listing finds none.
"""

import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task

from tasks.base.retrying import RETRYING
from tasks.runs import checkpoints, dataset, manifest, run_log, work
from tasks.runs.checkpoints import Batch, Done
from tasks.runs.details import Cut, Listed
from tasks.runs.parts import ids_file
from tasks.runs.plan import Target
from tasks.runs.run import Run, open_run
from tasks.stores.interface import Records
from tasks.stores.records import with_hash

ROUNDS = 3
"""Listings at most: under steady writes one never finds nothing, and catching up takes it from there."""


def list_ids(run: Run, listing: int, alone: bool = False) -> int:
    """Lists the ids of every target that is loaded whole and cuts what is new into batches; returns how many batches.

    Each target's listing is recorded with its batches in one transaction, so a killed run lists what is missing. With
    ``alone`` the snapshot is made for itself: of every target, and before anything follows the writes at the source.
    """
    with run.connection() as connection:
        if alone:
            manifest.ask_for(connection, run.run_id)
        else:
            manifest.ask_for_more(connection, run.run_id)
        source = run.source()
        known = {b.number for b in checkpoints.batches(connection, run.run_id, "list") if b.status == "done"}
        for target in run.plan.targets:
            if (alone or target.place.loads) and (number := _list_number(run, listing, target)) not in known:
                with run_log.stage(run.run_id, "list", number) as entry:
                    entry.rows = _list_target(run, source.records(target.collection.name), target, listing, alone)
        return sum(b.detail.listing == listing for b in checkpoints.of(connection, run.run_id, Cut))


def snapshot(run: Run, numbers: list[int]) -> work.Tally:
    """Fetches and writes these batches' parts."""
    source = run.source(fresh=False)

    def one(batch: Batch[Cut]) -> int:
        started, cut = time.perf_counter(), batch.detail
        target = run.plan.targets[cut.target]
        ids = dataset.read_ids(run.path("snapshot", cut.ids), cut.group)
        rows = with_hash(pa.Table.from_batches([source.records(target.collection.name).fetch(ids.to_pylist())]))
        path = f"{dataset.folder(target.number, target.place.label)}/part-{batch.number:05d}.parquet"
        part = dataset.write_part(run.path("snapshot"), path, batch.number, target.number, rows)
        with run.connection() as connection:
            seconds, detail = time.perf_counter() - started, replace(cut, part=part)
            checkpoints.done(
                connection,
                run.run_id,
                Done("snapshot", batch.number, rows=rows.num_rows, seconds=seconds, detail=detail),
            )
        return rows.num_rows

    return work.through(run, Cut, numbers, one)


def finish(run: Run) -> int:
    """Writes the manifest once every part is there; returns the rows of the snapshot. One that says the same stays."""
    with run.connection() as connection:
        parts = [b.detail.written for b in checkpoints.of(connection, run.run_id, Cut)]
        if manifest.kept_parts(run) != parts:
            manifest.write(run, connection, parts)
        rows = sum(part.rows for part in parts)
        checkpoints.done(connection, run.run_id, Done(manifest.STAGE, 0, rows=rows, seconds=0.0))
    return rows


def _list_target(run: Run, records: Records, target: Target[Any], listing: int, alone: bool) -> int:
    started, request = time.perf_counter(), run.plan.request
    ids = records.ids()
    if request.limit:
        ids = ids[: request.limit] if listing == 0 else ids[:0]
    for earlier in range(listing):
        ids = ids.filter(pc.invert(pc.is_in(ids, dataset.read_ids(run.path("snapshot", ids_file(target, earlier))))))
    file, size = ids_file(target, listing), request.batch_rows
    dataset.write_ids(run.path("snapshot", file), ids, size)
    groups = -(-len(ids) // size)
    with run.connection() as connection, connection.transaction():
        first = len(checkpoints.batches(connection, run.run_id, "snapshot"))
        cuts = [(first + group, Cut(target.number, listing, file, group)) for group in range(groups)]
        checkpoints.add(connection, run.run_id, "snapshot", cuts)
        seconds = time.perf_counter() - started
        checkpoints.done(
            connection,
            run.run_id,
            Done("list", _list_number(run, listing, target), rows=len(ids), seconds=seconds, detail=Listed(alone)),
        )
    return len(ids)


def _list_number(run: Run, listing: int, target: Target) -> int:
    return listing * len(run.plan.targets) + target.number


@task(name="list-ids", task_run_name="list ids, pass {listing}", **RETRYING)
def list_ids_task(run_id: str, database: str, listing: int, alone: bool = False) -> int:
    return list_ids(open_run(run_id, database), listing, alone)


@task(name="snapshot", task_run_name="snapshot {which}", **RETRYING)
def snapshot_task(run_id: str, database: str, numbers: list[int], which: str) -> work.Tally:
    return snapshot(open_run(run_id, database), numbers).settled()


@task(name="finish-snapshot", task_run_name="write the manifest", **RETRYING)
def finish_task(run_id: str, database: str) -> int:
    with run_log.stage(run_id, "manifest") as entry:
        rows = entry.rows = finish(open_run(run_id, database))
    return rows
