"""The one body that all migrations share."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect import State, Task
from prefect.exceptions import Pause
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed

from flows.approval import approved
from flows.forms.gates import DEFAULTS, GatesOfRun, stated
from flows.forms.shared import Base, Checked, Gated, Migration, OfRun, Shared
from flows.naming import named_after, own_run_id, this_flow_run
from tasks import snapshot
from tasks.base import files, memory
from tasks.base.errors import BatchesFailed, FatalError, UsageError, VecferryError, VerificationRefused
from tasks.base.words import batches_named, counted
from tasks.begin import begin_task, ready_to_catch_up, reopen_named
from tasks.catch_up import CaughtUp, catch_up_task
from tasks.checks.gates import Gates
from tasks.cutover import cutover_task
from tasks.index import index_task
from tasks.load import expand_task, key_task, load_task, prepare_task
from tasks.runs import artifacts, checkpoints, home, ledger, manifest, run_log, status, work
from tasks.runs.commands import command, resumption
from tasks.runs.holding import sole_runner
from tasks.runs.owners import TakenUp, take_up_task
from tasks.runs.run import Run, chosen, open_run
from tasks.snapshot import finish_task, list_ids_task, snapshot_task
from tasks.verify import verify_task

Outcome = dict[str, Any]
FINISHED = ("cut_over", "contracted")
SHOWN_SECONDS = 1.0
"""Between two moves of a stage's progress bar at least: each is a request that other work waits for."""


def migrate(parameters: Migration) -> State[Outcome]:
    """Snapshot, load, index, catch up, verify and, if asked to, cut over; what is done already is not done again, and what
    is switched already is caught up."""
    taken = taken_up(parameters)
    run_id, fired, answer = taken.run_id, this_flow_run(), None
    before = begun(parameters, run_id)
    if fired.empirical_policy.pause_keys:  # it waited for an answer, which is there
        with open_run(run_id, parameters.database).connection() as connection:
            ledger.set_waiting(connection, run_id, None)
        if before == "rolled_back":
            return ended(run_id, parameters.database, ["rolled back while an approval was waited for: not switched"])
    plan = open_run(run_id, parameters.database).plan
    if plan.followed and is_followed(parameters, taken, before):
        share, gates = parameters.database_share, GatesOfRun(**stated(parameters.gates))
        return follow(Checked(run_id=run_id, database=parameters.database, database_share=share, gates=gates))
    if before in FINISHED and fired.auto_scheduled and plan.flow_run != str(fired.id):
        raise UsageError(
            f"run {run_id} is {before.replace('_', ' ')}, so there is nothing left to do by that name: leave run_id out, "
            f"and each scheduled run gets a name of its own"
        )
    with running(run_id, parameters, "run") as run:
        if run:
            reopen_named(run, parameters.batch_ids)
            expand_task(run.run_id, parameters.database)
            take_snapshot(run, parameters)
            load(run, parameters)
            passes = catch_up(run, parameters)  # goes on while the index is built
            index(run, parameters)
            answer = finish(run, parameters, passes)
    return ended(run_id, parameters.database, ["not approved: left verified"] if answer is False else [])


def begun(parameters: Migration, run_id: str, asks_model: bool = True) -> ledger.State:
    """Begins the run, or takes it up: its state before."""
    given, fired, missing = sorted(parameters.given()), str(this_flow_run().id), parameters.missing()
    return begin_task(parameters.request(), run_id, given, parameters.batch_ids, fired, asks_model, missing)


def taken_up(parameters: Migration) -> TakenUp:
    """The run that is named, or the one that this flow run is about."""
    if parameters.run_id:
        return TakenUp(parameters.run_id)
    if missing := parameters.missing():
        raise UsageError(missing)
    fired = this_flow_run()
    own = own_run_id(parameters.flow)
    taken = take_up_task(parameters.request(), parameters.places(), str(fired.id), own)
    if taken.owned:
        artifacts.flow_run_name(fired.id, named_after(parameters.flow, taken.run_id))
    return taken


def is_followed(parameters: Shared, taken: TakenUp, before: ledger.State) -> bool:
    """Whether the run is brought in line with its source and no more: it is switched, or another flow run left it verified
    and this one is not to switch it either."""
    if before != "verified" or not taken.owned:
        return before in FINISHED
    with open_run(taken.run_id, parameters.database).connection() as connection:
        asked = ledger.get(connection, taken.run_id).waiting
    answers = this_flow_run().empirical_policy.pause_keys  # this flow run has asked, and goes on with the answer
    return parameters.cutover == "manual" or (asked and not answers)


def follow(parameters: Checked) -> State[Outcome]:
    """Brings a run's vectors in line with their source once more."""
    run_id = parameters.run_id
    with holding(parameters, "catch-up", ready_to_follow) as run, run.giving_way(parameters.database_share):
        passes = catch_up(run, parameters)
        wait(passes)
        for caught_up in passes:
            caught_up.result()
    targets = outcome(run_id, parameters.database)["targets"]
    lines = [f"caught up run {run_id}: {t['name']} → {t['table']}: {status.changes(t)}" for t in targets]
    return ended(run_id, parameters.database, lines)


def ready_to_follow(run: Run, record: ledger.RunRecord) -> None:
    """Raises UsageError for a run that has nothing to be brought in line, and with another home than its own."""
    ready_to_catch_up(run, record)
    home.check(run.plan, run.home)


def take_snapshot(run: Run, parameters: Shared, alone: bool = False) -> None:
    """Lists, fetches, lists again, and writes the manifest; ``alone`` where nothing is to follow for now."""
    with run.connection() as connection:
        fresh = 0 if alone else manifest.listings_alone(connection, run.plan)
    again = resumption(run.plan, "snapshot") if alone else None
    for listing in range(fresh + snapshot.ROUNDS):
        if list_ids_task(run.run_id, parameters.database, listing, alone):
            in_chunks(run, parameters, "snapshot", snapshot_task, again)
        elif listing >= max(fresh, 1):
            break
    finish_task(run.run_id, parameters.database)


def load(run: Run, parameters: Shared) -> None:
    prepare_task(run.run_id, parameters.database)
    with memory.keeping(run.plan.page_bytes):
        in_chunks(run, parameters, "load", load_task)
    key_task(run.run_id, parameters.database)


def index(run: Run, parameters: Shared) -> None:
    """Builds the indexes, one target after the other: each build uses the whole machine."""
    bar, targets = artifacts.progress(run.run_id, "index"), run.plan.targets
    for target in targets:
        index_task(run.run_id, parameters.database, target.number, target.place.label, bar)
        artifacts.moved(bar, target.number + 1, len(targets))


def catch_up(run: Run, parameters: Gated) -> list[PrefectFuture[CaughtUp]]:
    """Starts catching up, one target after the other, and returns at once. ``verify`` waits for it."""
    bar, most = artifacts.progress(run.run_id, "catch-up"), gates_of(run, parameters).max_deleted
    passes: list[PrefectFuture[CaughtUp]] = []
    for t in run.plan.targets:
        what = {"run_id": run.run_id, "database": parameters.database, "number": t.number, "table": t.place.label}
        passes.append(catch_up_task.submit(**what, max_deleted=most, bar=bar, return_state=False, wait_for=passes[-1:]))
    return passes


def verify(run: Run, parameters: Gated, passes: list[PrefectFuture[CaughtUp]]) -> None:
    last = [caught_up.result().last for caught_up in passes]
    bar = artifacts.progress(run.run_id, "verify")
    verify_task(run.run_id, parameters.database, gates_of(run, parameters), last, bar)
    artifacts.moved(bar, 1, 1)
    with run.connection() as connection:
        ledger.set_state(connection, run.run_id, "verified")


def finish(run: Run, parameters: Shared, passes: list[PrefectFuture[CaughtUp]]) -> bool | None:
    """Verifies, and switches where that was asked for. Returns the answer of a person who was asked."""
    synced = all(t.place.at_once for t in run.plan.targets)
    smoke = bool(run.plan.limited)
    if synced or smoke or parameters.cutover != "auto":
        verify(run, parameters, passes)
    if synced and not smoke:
        cutover_task(run.run_id, parameters.database)
    elif not smoke:
        if answer := approved(run, parameters.cutover):
            switch(run, parameters, passes)
        return answer
    return None


def switch(run: Run, parameters: Gated, passes: Sequence[PrefectFuture[CaughtUp]] = ()) -> None:
    """A last catch-up, once ``passes`` have ended, then verification, then the final names in one transaction."""
    with run.connection() as connection:
        ledger.set_state(connection, run.run_id, "running")
        ledger.set_doing(connection, run.run_id, "cutover")
    wait(list(passes))
    verify(run, parameters, catch_up(run, parameters))
    cutover_task(run.run_id, parameters.database)
    mirror(run)


def mirror(run: Run) -> None:
    """Tells Prefect which vectors of live tables are meant now."""
    with run.connection() as connection:
        for table, says in status.active_spaces(connection, run.plan):
            artifacts.active_space(table, says)


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
            problem = None if refused else _said(error)
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
                    checkpoints.request_stop(connection, run_id, f"run {run_id} has ended: {_said(error)}")
                    ledger.end_badly(
                        connection,
                        record,
                        _keeps(record.state, verb, error),
                        _said(error),
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


def in_chunks(run: Run, parameters: Shared, stage: str, do: "Task[Any, work.Tally]", again: str | None = None) -> None:
    """Runs the stage's batches that are not done, ``workers`` chunks at a time. ``again`` is the command that tries those
    that fail once more; `vecferry rerun` when left out.

    Raises BatchesFailed when some are left, and the FatalError that stopped them when there was one.
    """
    with run.connection() as connection:
        named = chosen(connection, run.run_id, parameters.batch_ids)
        found = checkpoints.batches(connection, run.run_id, stage)
    # Naming batches says which failures to try again; what was never reached is gone on with in any case.
    numbers = [b.number for b in found if b.status == "pending" or (b.status == "failed" and named(b.number))]
    bar = artifacts.progress(run.run_id, stage)
    waiting: list[PrefectFuture[work.Tally]] = []
    problem: BaseException | None = None
    shown = time.monotonic()
    for chunk in work.chunks(numbers, parameters.workers):
        if len(waiting) >= parameters.workers:
            problem = _worse(problem, waiting.pop(0))
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
            _left(stage, left, problem, again or command("rerun", run.run_id, parameters.database)),
            [b.number for b in left],
        )


def move(run: Run, stage: str, bar: UUID | None) -> None:
    """Moves the stage's progress bar to what the ledger says."""
    with run.connection() as connection:
        found = checkpoints.batches(connection, run.run_id, stage)
    artifacts.moved(bar, sum(b.status == "done" for b in found), len(found))


def publish_failures(run: Run, parameters: Base, connection: Any, verb: ledger.Verb) -> None:
    """Shows the failed batches and the parameters that rerun them; those of a snapshot alone are tried again by itself."""
    failed = [b for b in status.failures(connection, run.run_id) if b.stage in ("snapshot", "load")]
    if failed and isinstance(parameters, Shared) and verb != "snapshot":
        again = type(parameters).model_validate(
            {
                **parameters.model_dump(by_alias=True),
                "run_id": run.run_id,
                "batch_ids": sorted({b.number for b in failed}),
            }
        )
        artifacts.rerun(run.run_id, failed, again.model_dump_json(by_alias=True, exclude_defaults=True))
    artifacts.batches(run.run_id, checkpoints.batches(connection, run.run_id))


def gates_of(run: Run, parameters: Gated) -> Gates:
    """What the run is accepted with: the gates stated now, else those of its ledger, else the defaults."""
    with run.connection() as connection:
        kept = ledger.get(connection, run.run_id).gates or {}
    return Gates(**{**DEFAULTS, **kept, **stated(parameters.gates)})


def outcome(run_id: str, database: str) -> Outcome:
    """What the run has come to, from the ledger."""
    with open_run(run_id, database).connection() as connection:
        return status.outcome(connection, run_id)


def ended(run_id: str, database: str, lines: Sequence[str] = (), **more: Any) -> State[Outcome]:
    """How a flow ends that did its work: in the state's message and an artifact, what it did (``lines``, or what the run has
    come to), and the run's outcome as its result."""
    result = outcome(run_id, database)
    told = list(lines) or [f"{result['state'].replace('_', ' ')}: {status.sentence(t)}" for t in result["targets"]]
    artifacts.result(run_id, told)
    return Completed(message="; ".join(told), data={**result, "done": list(lines), **more})


def _worse(problem: BaseException | None, future: "PrefectFuture[work.Tally]") -> BaseException | None:
    """Waits for a chunk and keeps the worse of two problems: a fatal one stops the stage. The ledger has the rest."""
    result: Any = future.result(raise_on_failure=False)
    if isinstance(problem, FatalError) or not isinstance(result, BaseException):
        return problem
    return result


def _left(stage: str, left: list[checkpoints.Batch], problem: BaseException | None, again: str) -> str:
    numbers = ", ".join(str(b.number) for b in left[:20]) + (", …" if len(left) > 20 else "")
    reason = next((b.error for b in left if b.error), None) or (_said(problem) if problem else "not reached")
    return (
        f"{counted(len(left), 'batch')} failed in {stage}: {numbers} ({reason}). The others are done. "
        f"Rerun them: {again}"
    )


def _said(error: BaseException) -> str:
    if not isinstance(error, Exception) or isinstance(error, CancelledError):
        return "interrupted"
    return str(error) if isinstance(error, VecferryError) else f"{type(error).__name__}: {error}"
