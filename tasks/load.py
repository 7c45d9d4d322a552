"""Load: the snapshot's parts into the shadows, before any key or index is there."""

import time

from prefect import task

from tasks.base.retrying import RETRYING
from tasks.runs import checkpoints, dataset, quarantine, run_log, work
from tasks.runs.checkpoints import Batch, Done
from tasks.runs.details import Cut, Loaded
from tasks.runs.run import Run, open_run
from tasks.runs.vectors import embedded
from tasks.shadows.registry import shadow_of


def expand(run: Run) -> int:
    """Makes the shadows that are missing; returns how many there are."""
    with run.refusable("make shadows"):
        for target in run.plan.targets:
            shadow_of(run, target).expand()
    return len(run.plan.targets)


def prepare(run: Run) -> int:
    """Makes a pending batch for every part of the snapshot that is loaded; returns how many are pending. Of a table that is
    synced a part is a backup and no more."""
    with run.connection() as connection:
        loaded = {t.number for t in run.plan.targets if t.place.loads}
        cut = [b for b in checkpoints.of(connection, run.run_id, Cut) if b.target in loaded]
        checkpoints.add(connection, run.run_id, "load", [(b.number, Loaded(b.target)) for b in cut])
        return sum(b.status != "done" for b in checkpoints.batches(connection, run.run_id, "load"))


def load(run: Run, numbers: list[int]) -> work.Tally:
    """Loads these batches. A batch that was loaded before is replaced, so that naming it again is safe."""
    with run.connection() as connection:
        cut = checkpoints.of(connection, run.run_id, Cut)
    parts = {b.number: b.detail.part for b in cut if b.detail.part}

    def one(batch: Batch[Loaded]) -> int:
        started, target = time.perf_counter(), run.plan.targets[batch.detail.target]
        page = dataset.read_part(run.path("snapshot"), parts[batch.number], embeddings=target.carried)
        page, refused = (page, {}) if target.carried else embedded(run, target, page, tally=True)
        shadow = shadow_of(run, target)
        page, rejected = shadow.sift(page, refused)
        if rejected:
            quarantine.keep(run, "load", batch.number, rejected)
        aside = rejected.num_rows if rejected else 0
        done = Done("load", batch.number, rows=page.num_rows, quarantined=aside, seconds=0.0)
        mark = checkpoints.mark(run.connection, run.run_id, done, started)
        return page.num_rows if shadow.load(page, rejected, bool(batch.rows), mark) else 0

    return work.through(run, Loaded, numbers, one)


def key(run: Run) -> int:
    """Makes the key of every shadow that lacks one, once its rows are in: catching up finds rows by it. Returns how many."""
    with run.refusable("make keys"):
        return sum(shadow_of(run, target).key() for target in run.plan.targets)


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
