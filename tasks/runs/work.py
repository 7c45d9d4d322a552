"""Works through the batches of a chunk: one failed batch does not stop the others, a fatal error stops them all."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from tasks.base.errors import BatchesFailed, FatalError, TransientError, UsageError
from tasks.base.words import counted
from tasks.runs import checkpoints, ledger, run_log
from tasks.runs.checkpoints import Batch, Done
from tasks.runs.mark import Mark
from tasks.runs.run import Run
from tasks.stores.postgres.connection import Connection, classified

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


def through(run: Run, stage: str, numbers: list[int], work: Callable[[Batch], int]) -> Tally:
    """Calls ``work`` for each batch that is not done; it commits the batch itself and returns its rows.

    Raises TransientError when any batch met one, so that the caller's retry takes up what is left, and FatalError,
    after asking the other workers to stop, when going on makes no sense.
    """
    tally, transient = Tally(), None
    with run.connection() as connection:
        by_number = {b.number: b for b in checkpoints.batches(connection, run.run_id, stage)}
        for number in numbers:
            ledger.check_stop(connection, run.run_id)
            if by_number[number].status == "done":
                continue
            started = time.perf_counter()
            try:
                with classified(f"batch {number} ({stage})"):
                    rows = work(by_number[number])
            except FatalError as error:
                run_log.note(run.run_id, stage, number, seconds=time.perf_counter() - started, error=error)
                with run.connection() as other:
                    ledger.request_stop(other, run.run_id, str(error))
                raise
            except TransientError as error:
                transient = error
                _note(run, stage, number, error, time.perf_counter() - started)
                if connection.broken:
                    raise
            except Exception as error:  # noqa: BLE001  any other fault is this batch's: recorded, named and rerun
                tally = Tally(tally.done, (*tally.failed, number), tally.rows)
                _note(run, stage, number, error, time.perf_counter() - started)
            else:
                run_log.note(run.run_id, stage, number, rows=rows, seconds=time.perf_counter() - started)
                tally = Tally(tally.done + 1, tally.failed, tally.rows + rows)
    if transient:
        raise transient
    return tally


def mark(run: Run, batch: Batch, started: float, rows: int, quarantined: int = 0) -> Mark:
    """The line of a batch that is done, whose work began at ``started`` by time.perf_counter."""

    def write(connection: Connection) -> None:
        seconds = time.perf_counter() - started
        checkpoints.done(
            connection, run.run_id, Done(batch.stage, batch.number, rows=rows, quarantined=quarantined, seconds=seconds)
        )

    return Mark(run, write, lambda connection: checkpoints.is_done(connection, run.run_id, batch.stage, batch.number))


def _note(run: Run, stage: str, number: int, error: Exception, seconds: float) -> None:
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
