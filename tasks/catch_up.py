"""Catch up: what was inserted, changed or deleted at the source meanwhile, pass after pass until one finds nothing.

Chroma has no feed of changes, so a pass reads the whole source once. Under steady writes passes cannot find nothing;
then the run goes on after ``PASSES``. It begins when the rows are in and goes on while the index is built, where writes
wait for the build; the switch begins with it once more, and that, after which writers move, is the last word.
"""

import time
from dataclasses import dataclass
from uuid import UUID

from prefect import task

from tasks.base.progress import Tell, part, quiet
from tasks.base.retrying import RETRYING
from tasks.runs import artifacts, checkpoints, run_log
from tasks.runs.checkpoints import Done
from tasks.runs.details import Followed
from tasks.runs.run import Run, open_run
from tasks.shadows.difference import Difference
from tasks.shadows.registry import shadow_of

PASSES = 5


@dataclass(frozen=True)
class CaughtUp:
    """What the passes over one target did."""

    total: Difference
    last: Difference
    """The last pass. When it found nothing, it compared every row of the source with an equal one."""


def catch_up(run: Run, number: int, max_deleted: float, tell: Tell = quiet) -> CaughtUp:
    """Brings one target in line with its source. Raises what its shadow's ``follow`` raises."""
    target, started, total, last = run.plan.targets[number], time.perf_counter(), Difference(), Difference()
    shadow = shadow_of(run, target)
    with run.refusable(f"catch up {target.name}"):
        for passes in range(1, PASSES + 1):
            last = shadow.follow(max_deleted, tell)
            total = shadow.changed(total + last)
            with run.connection() as connection:
                checkpoints.done(
                    connection,
                    run.run_id,
                    Done(
                        "catch_up",
                        number,
                        rows=total.touched,
                        seconds=time.perf_counter() - started,
                        detail=_detail(total, passes, last),
                    ),
                )
            if not last.touched:
                break
    tell(1.0)
    return CaughtUp(total, last)


def _detail(total: Difference, passes: int, last: Difference) -> Followed:
    return Followed(
        inserted=total.missing.count,
        updated=total.stale.count,
        deleted=total.orphaned.count,
        foreign=last.foreign,
        quarantined=last.quarantined.count,
        passes=passes,
        settled=last.touched == 0,
    )


@task(name="catch-up", task_run_name="catch up {table}", **RETRYING)
def catch_up_task(
    run_id: str, database: str, number: int, table: str, max_deleted: float, bar: UUID | None
) -> CaughtUp:
    run = open_run(run_id, database)
    with artifacts.telling(run, bar) as tell, run_log.stage(run_id, "catch_up", number) as entry:
        caught_up = catch_up(run, number, max_deleted, part(tell, number, len(run.plan.targets)))
        entry.rows = caught_up.total.touched
    return caught_up


@task(name="reread", **RETRYING)
def reread_task(run_id: str, database: str) -> None:
    """Has the next pass look at every row."""
    run = open_run(run_id, database)
    for target in run.plan.targets:
        with run.refusable(f"read {target.name} again"):
            shadow_of(run, target).reread()
