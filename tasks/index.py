"""Index: what each target's shadow needs to be searched."""

import time
from typing import Any
from uuid import UUID

from prefect import task

from tasks.base.retrying import RETRYING
from tasks.runs import artifacts, checkpoints, holding, run_log
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run, open_run
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres import hnsw
from tasks.stores.postgres.connection import refusable


def index(run: Run, number: int) -> dict[str, Any]:
    """Builds what the target's shadow lacks and returns how: memory, workers, seconds. Nothing that is there is rebuilt."""
    target = run.plan.targets[number]
    with run.connection() as connection, refusable(f"index of {target.name}"):
        if checkpoints.is_done(connection, run.run_id, "index", number):
            return {}
        started = time.perf_counter()
        how = shadow_of(run, target).index(connection)
        seconds = time.perf_counter() - started
        checkpoints.done(
            connection, run.run_id, Mark("index", number, rows=0, seconds=seconds, detail={**how, "target": number})
        )
        return {**how, "seconds": seconds}


def _share(run: Run, number: int) -> float:
    """How far all targets' indexes are, from 0 to 1."""
    with run.connection() as connection:
        at = hnsw.progress(connection, holding.application(run.run_id))
    return (number + (at[1] if at else 0.0)) / len(run.plan.targets)


@task(name="index", task_run_name="index {table}", **RETRYING)
def index_task(run_id: str, database: str, number: int, table: str, bar: UUID | None) -> dict[str, Any]:
    run = open_run(run_id, database)
    with artifacts.following(bar, lambda: _share(run, number)), run_log.stage(run_id, "index", number):
        return index(run, number)
