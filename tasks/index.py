"""Index: what each target's shadow needs to be searched."""

import time
from uuid import UUID

from prefect import task

from tasks.base.retrying import RETRYING
from tasks.runs import artifacts, checkpoints, run_log
from tasks.runs.checkpoints import Done
from tasks.runs.details import Indexed
from tasks.runs.run import Run, open_run
from tasks.shadows.registry import shadow_of


def index(run: Run, number: int) -> None:
    """Builds what the target's shadow lacks; the ledger notes how. Nothing that is there is rebuilt."""
    target = run.plan.targets[number]
    with run.refusable(f"index of {target.name}"):
        with run.connection() as connection:
            if checkpoints.is_done(connection, run.run_id, "index", number):
                return
        started = time.perf_counter()
        built = shadow_of(run, target).index()
        seconds, detail = time.perf_counter() - started, Indexed(number, **vars(built))
        with run.connection() as connection:
            checkpoints.done(connection, run.run_id, Done("index", number, rows=0, seconds=seconds, detail=detail))


def _share(run: Run, number: int) -> float:
    """How far all targets' indexes are, from 0 to 1."""
    return (number + shadow_of(run, run.plan.targets[number]).indexed()) / len(run.plan.targets)


@task(name="index", task_run_name="index {table}", **RETRYING)
def index_task(run_id: str, database: str, number: int, table: str, bar: UUID | None) -> None:
    run = open_run(run_id, database)
    with artifacts.following(run, bar, lambda: _share(run, number)), run_log.stage(run_id, "index", number):
        index(run, number)
