"""Holding a run while a flow works on it: nobody else does meanwhile, and the ledger notes how it ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.exceptions import Pause

from flows.forms.gates import DEFAULTS, stated
from flows.forms.shared import Base, Gated, OfRun, Shared
from flows.outcome import words_of
from tasks.base import files
from tasks.base.errors import BatchesFailed, UsageError, VerificationRefused
from tasks.checks.gates import Gates
from tasks.runs import artifacts, checkpoints, home, ledger, run_log, status
from tasks.runs.holding import sole_runner
from tasks.runs.run import Run, open_run

FINISHED = ("cut_over", "contracted")

Ready = Callable[[Run, ledger.RunRecord], None]
"""Raises when a verb cannot be done with a run as it is."""


@contextmanager
def holding(parameters: OfRun, verb: ledger.Verb, ready: Ready | None = None) -> Iterator[Run]:
    """Holds a run there is while the body does ``verb``, so that nobody else works on it meanwhile."""
    run = open_run(parameters.run_id, parameters.database)
    with sole_runner(run.url, run.run_id), run.kept_open():
        with run.connection() as connection:
            if ready:
                ready(run, ledger.get(connection, run.run_id))
            ledger.set_doing(connection, run.run_id, verb)
            checkpoints.request_stop(connection, run.run_id, None)
        problem: str | None = None
        try:
            yield run
        except BaseException as error:
            # A refusal says nothing of the run; what a check or the database says of it does.
            refused = isinstance(error, UsageError) or (verb == "contract" and isinstance(error, VerificationRefused))
            problem = None if refused else words_of(error)
            raise
        finally:
            with run.connection() as connection:
                ledger.set_doing(connection, run.run_id, None)
                ledger.set_error(connection, run.run_id, problem)


@contextmanager
def running(run_id: str, parameters: Gated, verb: ledger.Verb, ready: Ready | None = None) -> Iterator[Run | None]:
    """Holds the run while the body works on it, and records how it ended. None when it is switched and done."""
    run = open_run(run_id, parameters.database)
    home.check(run.plan, run.home)
    with sole_runner(run.url, run_id), run.kept_open(), run.giving_way(parameters.database_share):
        with run.connection() as connection:
            record = ledger.get(connection, run_id)  # as it is now that nobody else can change it
            if ready:
                ready(run, record)
        if record.state in FINISHED:
            yield None
            return
        files.clear_partial(run.path())
        gates = gates_of(run, parameters)
        with run.connection() as connection:
            ledger.set_gates(connection, run_id, gates.model_dump())
            checkpoints.request_stop(connection, run_id, None)
            ledger.set_report(connection, run_id, None)
            ledger.set_state(connection, run_id, "running")
            ledger.set_doing(connection, run_id, verb)
            ledger.set_waiting(connection, run_id, None)
        started = time.monotonic()
        try:
            yield run
        except Pause:  # suspended until somebody answers: the flow starts over then
            with run.connection() as connection:
                ledger.set_doing(connection, run_id, None)
            raise
        except BaseException as error:
            try:
                with run.connection() as connection:
                    checkpoints.request_stop(connection, run_id, f"run {run_id} has ended: {words_of(error)}")
                    ledger.end_badly(
                        connection,
                        record,
                        _keeps(record.state, verb, error),
                        words_of(error),
                        getattr(error, "exit_status", 1),
                    )
                    publish_failures(run, parameters, connection, verb)
            finally:
                run_log.note(run_id, "end", seconds=time.monotonic() - started, error=error)
            raise
        with run.connection() as connection:
            ledger.set_doing(connection, run_id, None)
            artifacts.batches(run_id, checkpoints.batches(connection, run_id))
        run_log.note(run_id, "end", seconds=time.monotonic() - started)


def _keeps(before: ledger.State, verb: ledger.Verb, error: BaseException) -> bool:
    """Whether the run is still what it was before a verb that did not do its work: a check that does not hold, or a
    batch that is missing, says that it is not."""
    if isinstance(error, VerificationRefused | BatchesFailed):
        return False
    return before == "verified" or (before == "rolled_back" and verb == "cutover")


def publish_failures(run: Run, parameters: Base, connection: Any, verb: ledger.Verb) -> None:
    """Shows the failed batches and the parameters that rerun them; those of a snapshot alone are tried again by itself."""
    failed = [b for b in status.failures(connection, run.run_id) if b.stage in ("snapshot", "load")]
    if failed and isinstance(parameters, Shared) and verb != "snapshot":
        retry_with = type(parameters).model_validate(
            {
                **parameters.model_dump(by_alias=True),
                "run_id": run.run_id,
                "batch_ids": sorted({b.number for b in failed}),
            }
        )
        artifacts.rerun(run.run_id, failed, retry_with.model_dump_json(by_alias=True, exclude_defaults=True))
    artifacts.batches(run.run_id, checkpoints.batches(connection, run.run_id))


def gates_of(run: Run, parameters: Gated) -> Gates:
    """What the run is accepted with: the gates stated now, else those of its ledger, else the defaults."""
    with run.connection() as connection:
        kept = ledger.get(connection, run.run_id).gates or {}
    return Gates(**{**DEFAULTS, **kept, **stated(parameters.gates)})
