"""Load: the snapshot's parts into the shadows, before any key or index is there."""

import time

import pyarrow as pa
from prefect import task

from tasks.base import memory
from tasks.base.retrying import RETRYING
from tasks.runs import checkpoints, dataset, quarantine, run_log, work
from tasks.runs.checkpoints import Batch, Mark
from tasks.runs.run import Run, open_run
from tasks.runs.vectors import embedded
from tasks.shadows.registry import shadow_of
from tasks.snapshot import part_of
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection, refusable


def expand(run: Run) -> int:
    """Makes the shadows that are missing; returns how many there are."""
    with run.connection() as connection, refusable("make shadows"):
        for target in run.plan.targets:
            shadow_of(run, target).expand(connection)
    return len(run.plan.targets)


def prepare(run: Run) -> int:
    """Makes a pending batch for every part of the snapshot that is loaded; returns how many are pending. Of a table that is
    synced a part is a backup and no more."""
    with run.connection() as connection:
        loaded = {t.number for t in run.plan.targets if t.place.loads}
        parts = [b for b in checkpoints.batches(connection, run.run_id, "snapshot") if b.detail["target"] in loaded]
        checkpoints.add(connection, run.run_id, "load", [(b.number, {"target": b.detail["target"]}) for b in parts])
        return sum(b.status != "done" for b in checkpoints.batches(connection, run.run_id, "load"))


def load(run: Run, numbers: list[int]) -> work.Tally:
    """Loads these batches. A batch that was loaded before is replaced, so that naming it again is safe."""
    with run.connection() as connection:
        parts = {
            b.number: part_of(b)
            for b in checkpoints.batches(connection, run.run_id, "snapshot")
            if b.number in set(numbers)
        }

    def one(connection: Connection, batch: Batch) -> int:
        started, target = time.perf_counter(), run.plan.targets[batch.detail["target"]]
        said = dataset.read_part(run.path("snapshot"), parts[batch.number], embeddings=target.carried)
        page, refused = embedded(run, target, said, tally=True)
        page, rejected = quarantine.sift(connection, page, target.place.layout, run.plan.request.nul, refused)
        if rejected:
            quarantine.keep(run, "load", batch.number, rejected)
        shadow, again = shadow_of(run, target), bool(batch.rows)
        with pace.turn(connection) as turn:
            *early, last = _pieces(page, shadow.piece_rows)
            for piece in early:
                with connection.transaction():
                    # What a crash loses of them is written again with their batch, whose commit waits for them all.
                    connection.execute("SET LOCAL synchronous_commit = off")
                    shadow.write(connection, piece, again, turn)
                turn.rest()
            with connection.transaction():
                if checkpoints.is_done(connection, run.run_id, "load", batch.number):
                    return 0
                shadow.write(connection, last, again, turn)
                if rejected:
                    shadow.refuse(connection, rejected)
                checkpoints.done(
                    connection,
                    run.run_id,
                    Mark(
                        "load",
                        batch.number,
                        rows=page.num_rows,
                        quarantined=rejected.num_rows if rejected else 0,
                        seconds=time.perf_counter() - started,
                    ),
                )
        return page.num_rows

    with memory.keeping(run.plan.page_bytes):
        return work.through(run, "load", numbers, one)


def _pieces(page: pa.Table, rows: int | None) -> list[pa.Table]:
    """The page cut into pieces of so many rows; one piece where it is empty, or is not cut."""
    return [page.slice(at, rows) for at in range(0, page.num_rows, rows)] if rows and page.num_rows else [page]


def key(run: Run) -> int:
    """Makes the key of every shadow that lacks one, once its rows are in: catching up finds rows by it. Returns how many."""
    with run.connection() as connection, refusable("make keys"):
        return sum(shadow_of(run, target).key(connection) for target in run.plan.targets)


@task(name="expand", task_run_name="make shadows", **RETRYING)
def expand_task(run_id: str, database: str) -> int:
    with run_log.stage(run_id, "expand"):
        return expand(open_run(run_id, database))


@task(name="prepare-load", task_run_name="cut into batches", **RETRYING)
def prepare_task(run_id: str, database: str) -> int:
    return prepare(open_run(run_id, database))


@task(name="load", task_run_name="load {which}", **RETRYING)
def load_task(run_id: str, database: str, numbers: list[int], which: str) -> work.Tally:
    return load(open_run(run_id, database), numbers).settled()


@task(name="key", task_run_name="make keys", **RETRYING)
def key_task(run_id: str, database: str) -> int:
    with run_log.stage(run_id, "key"):
        return key(open_run(run_id, database))
