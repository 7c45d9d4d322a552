"""A stage's batches as Prefect task runs: ``workers`` chunks at a time, with a progress bar."""

import time
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.futures import PrefectFuture, as_completed

from flows.forms.shared import Shared
from flows.outcome import words_of
from tasks.base.errors import BatchesFailed, FatalError
from tasks.base.words import agreeing, batches_named, counted
from tasks.runs import artifacts, checkpoints, work
from tasks.runs.commands import command
from tasks.runs.run import Run, chosen

SHOWN_SECONDS = 1.0
"""Between two moves of a stage's progress bar at least: each is a request that other work waits for."""


def in_chunks(
    run: Run, parameters: Shared, stage: str, do: "Task[Any, work.Tally]", retry_with: str | None = None
) -> None:
    """Runs the stage's batches that are not done, ``workers`` chunks at a time. ``retry_with`` is the command that tries those
    that fail once more; `vecferry rerun` when left out.

    Raises BatchesFailed when some are left, and the FatalError that stopped them when there was one.
    """
    with run.connection() as connection:
        named = chosen(connection, run.run_id, parameters.batch_ids)
        batches = checkpoints.batches(connection, run.run_id, stage)
    # Naming batches says which failures to try again; what was never reached is gone on with in any case.
    numbers = [b.number for b in batches if b.status == "pending" or (b.status == "failed" and named(b.number))]
    bar = artifacts.progress(run, stage)
    waiting: list[PrefectFuture[work.Tally]] = []
    problem: BaseException | None = None
    shown = time.monotonic()
    for chunk in work.chunks(numbers, parameters.workers):
        if len(waiting) >= parameters.workers:
            ended = next(as_completed(waiting))  # the first to end: whoever waits for the oldest leaves a worker idle
            waiting.remove(ended)
            problem = _worse(problem, ended)
            if time.monotonic() > shown + SHOWN_SECONDS:
                move(run, stage, bar)
                shown = time.monotonic()
        if isinstance(problem, FatalError):
            break
        waiting.append(do.submit(run.run_id, parameters.database, chunk, batches_named(chunk)))
    for future in waiting:
        problem = _worse(problem, future)
    move(run, stage, bar)
    if isinstance(problem, FatalError):
        raise problem
    with run.connection() as connection:
        left = [b for b in checkpoints.batches(connection, run.run_id, stage) if b.status != "done"]
    if left:
        raise BatchesFailed(
            _left(stage, left, problem, retry_with or command("rerun", run.run_id, parameters.database)),
            [b.number for b in left],
        )


def move(run: Run, stage: str, bar: UUID | None) -> None:
    """Moves the stage's progress bar to what the ledger says."""
    with run.connection() as connection:
        batches = checkpoints.batches(connection, run.run_id, stage)
    artifacts.moved(run, bar, sum(b.status == "done" for b in batches), len(batches))


def _worse(problem: BaseException | None, future: "PrefectFuture[work.Tally]") -> BaseException | None:
    """Waits for a chunk and keeps the worse of two problems: a fatal one stops the stage. The ledger has the rest."""
    result: Any = future.result(raise_on_failure=False)
    if isinstance(problem, FatalError) or not isinstance(result, BaseException):
        return problem
    return result


def _left(stage: str, left: list[checkpoints.Batch], problem: BaseException | None, retry_with: str) -> str:
    numbers = ", ".join(str(b.number) for b in left[:20]) + (", …" if len(left) > 20 else "")
    reason = next((b.error for b in left if b.error), None) or (words_of(problem) if problem else "not reached")
    return (
        f"{counted(len(left), 'batch')} failed in {stage}: {numbers} ({reason}). The others are done. "
        f"Rerun {agreeing(len(left), 'them')}: {retry_with}"
    )
