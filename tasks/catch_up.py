"""Catch up: what was inserted, changed or deleted at the source meanwhile, pass after pass until one finds nothing.

Chroma has no feed of changes, so a pass reads the whole source once. Under steady writes passes cannot find nothing;
then the run goes on after ``PASSES``. It begins when the rows are in and goes on while the index is built, where writes
wait for the build; the switch begins with it once more, and that, after which writers move, is the last word.
"""

import time
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from prefect import task

from sql import statement
from tasks import artifacts, ledger
from tasks.artifacts import Tell, quiet
from tasks.cutover import current_table
from tasks.difference import Difference, Named, compare
from tasks.errors import VerificationRefused
from tasks.plan import Target
from tasks.retrying import RETRYING
from tasks.run import Run, open_run
from tasks.stores.connection import Connection, classified

PASSES = 5


@dataclass(frozen=True)
class CaughtUp:
    """What the passes over one target did."""

    total: Difference
    last: Difference
    """The last pass. When it found nothing, it compared every row of the source with an equal one."""


def catch_up(run: Run, number: int, max_deleted: float, tell: Tell = quiet) -> CaughtUp:
    """Brings one target in line with its source.

    Raises VerificationRefused when a sync would delete more than ``max_deleted`` of a live table: a source that was
    emptied or swapped by mistake must not empty the table people search.
    """
    target, started, total, last = run.plan.targets[number], time.perf_counter(), Difference(), Difference()
    live = target.mode == "sync"
    with classified(f"catch up {target.name}"):
        with run.connection() as connection:
            table = current_table(connection, run, target)
            if live:
                _guard_deletes(run, connection, target, max_deleted)
        for passes in range(1, PASSES + 1):
            last = compare(run, target, table, apply=True, journal=live, tell=tell)
            total += last
            with run.connection() as connection:
                if live:
                    missing, stale, orphaned = _touched(connection, run, target)
                    total = replace(total, missing=missing, stale=stale, orphaned=orphaned)
                ledger.done(
                    connection,
                    run.run_id,
                    "catch_up",
                    number,
                    rows=total.touched,
                    seconds=time.perf_counter() - started,
                    detail=_detail(total, passes, last),
                )
            if not last.touched:
                break
    tell(1.0)
    return CaughtUp(total, last)


def _touched(connection: Connection, run: Run, target: Target) -> list[Named]:
    """What this run has changed in a live table so far, by its journal: a process that was killed counts too."""
    query = statement("sync_touched", schema=target.schema, table=target.table, run_id=run.run_id, target=target.number)
    row = connection.execute(query).fetchone()
    assert row
    return [Named(count) for count in row]


def _guard_deletes(run: Run, connection: Connection, target: Target, max_deleted: float) -> None:
    row = connection.execute(
        "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", (target.final.identifier.as_string(),)
    ).fetchone()
    held, offered = max(0, row[0]) if row else 0, run.source().collection(target.collection.name).count
    if held and offered < held * (1 - max_deleted):
        raise VerificationRefused(
            f"{target.name} holds about {held} rows and {target.collection.name} only {offered}: a sync would delete more "
            f"than {max_deleted:.0%}, so nothing was touched. If that is meant, set -p gates.max_deleted=1"
        )


def _detail(total: Difference, passes: int, last: Difference) -> dict[str, Any]:
    return {
        "inserted": total.missing.count,
        "updated": total.stale.count,
        "deleted": total.orphaned.count,
        "foreign": last.foreign,
        "quarantined": last.quarantined.count,
        "passes": passes,
        "settled": last.touched == 0,
    }


@task(name="catch-up", task_run_name="catch up {table}", **RETRYING)
def catch_up_task(
    run_id: str, database: str, number: int, table: str, max_deleted: float, bar: UUID | None
) -> CaughtUp:
    run = open_run(run_id, database)
    with artifacts.telling(bar) as tell:
        return catch_up(run, number, max_deleted, artifacts.part(tell, number, len(run.plan.targets)))
