"""Works through the batches of a chunk: one failed batch does not stop the others, a fatal error stops them all."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from tasks.base.errors import BatchesFailed, FatalError, TransientError, UsageError
from tasks.base.words import counted
from tasks.runs import checkpoints, run_log
from tasks.runs.checkpoints import Batch, D
from tasks.runs.run import Run
from tasks.stores.postgres.connection import classified_error

CHUNKS = 48
"""Task runs a stage at most: Prefect's history of a flow run stays legible and whole below 200."""


@dataclass(frozen=True)
class Tally:
    """What a chunk did."""

    done: int = 0
    failed: tuple[int, ...] = ()
    rows: int = 0

    def settled(self) -> "Tally":
        """The tally itself. Raises BatchesFailed when batches failed, so that a task that failed some is not green."""
        if self.failed:
            numbers = ", ".join(map(str, self.failed))
            raise BatchesFailed(f"{counted(len(self.failed), 'batch')} failed: {numbers}", list(self.failed))
        return self


def through(run: Run, kind: type[D], numbers: list[int], work: Callable[[Batch[D]], int]) -> Tally:
    """Calls ``work`` for each batch of ``kind``'s stage that is not done; it commits the batch itself and returns its rows.

    Raises TransientError when any batch met one, so that the caller's retry takes up what is left, and FatalError,
    after asking the other workers to stop, when going on makes no sense.
    """
    run_id, stage, tally, transient = run.run_id, kind.stage, Tally(), None
    with run.connection() as connection:
        by_number = {b.number: b for b in checkpoints.of(connection, run_id, kind)}
        for number in numbers:
            checkpoints.check_stop(connection, run_id)
            if by_number[number].status == "done":
                continue
            started = time.perf_counter()
            try:
                rows = work(by_number[number])
            except Exception as raised:  # noqa: BLE001  what is no reason to stop is this batch's: recorded, named and rerun
                error = classified_error(f"batch {number} ({stage})", raised)
                cause = None if error is raised else raised
                _note(run, stage, number, error, time.perf_counter() - started)
                if isinstance(error, FatalError):
                    with run.connection() as other:
                        checkpoints.request_stop(other, run_id, str(error))
                    raise error from cause
                if not isinstance(error, TransientError):
                    tally = Tally(tally.done, (*tally.failed, number), tally.rows)
                elif connection.broken:
                    raise error from cause
                else:
                    transient = error
            else:
                seconds = time.perf_counter() - started
                run_log.note(run_id, stage, number, rows=rows, seconds=seconds, home=run.home)
                tally = Tally(tally.done + 1, tally.failed, tally.rows + rows)
    if transient:
        raise transient
    return tally


def _note(run: Run, stage: str, number: int, error: Exception, seconds: float) -> None:
    if not isinstance(error, FatalError):  # that is the run's, and not this batch's
        # On a connection of its own: the chunk's may be the thing that broke.
        text = str(error) if isinstance(error, UsageError | TransientError) else f"{type(error).__name__}: {error}"
        with run.connection() as connection:
            checkpoints.failed(connection, run.run_id, stage, number, text)
    run_log.note(run.run_id, stage, number, seconds=seconds, error=error)


def chunks(numbers: list[int], workers: int) -> list[list[int]]:
    """Consecutive batches, in at most ``CHUNKS`` groups and, where there are enough, several for every worker. They are of
    one length, or one batch longer: no worker is left with the last of them while the others are idle."""
    groups = min(CHUNKS, max(workers * 4, 1), len(numbers))
    ends = [len(numbers) * (group + 1) // groups for group in range(groups)]
    return [numbers[start:end] for start, end in pairwise([0, *ends])]
