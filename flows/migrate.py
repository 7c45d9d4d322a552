"""The one body that all migrations share."""

from collections.abc import Sequence

from prefect import State
from prefect.futures import PrefectFuture, wait

from flows.approval import approved
from flows.chunks import in_chunks
from flows.forms.gates import GatesOfRun, stated
from flows.forms.shared import CatchUp, Gated, Migration, Shared
from flows.naming import named_after, own_run_id, this_flow_run
from flows.outcome import Result, ended, outcome
from flows.running import FINISHED, gates_of, holding, running
from tasks import snapshot
from tasks.base import memory
from tasks.base.errors import UsageError
from tasks.begin import begin_task, ready_to_catch_up, reopen_named
from tasks.catch_up import CaughtUp, catch_up_task, reread_task
from tasks.cutover import cutover_task
from tasks.index import index_task
from tasks.load import expand_task, key_task, load_task, prepare_task
from tasks.runs import artifacts, home, ledger, manifest, status
from tasks.runs.commands import resumption
from tasks.runs.database import database_url
from tasks.runs.owners import TakenUp, take_up_task
from tasks.runs.run import Run, open_run
from tasks.snapshot import finish_task, list_ids_task, snapshot_task
from tasks.stores.postgres import pace
from tasks.verify import verify_task


def migrate(parameters: Migration) -> State[Result]:
    """Snapshot, load, index, catch up, verify and, if asked to, cut over; what is done already is not done again, and what
    is switched already is caught up."""
    taken = taken_up(parameters)
    run_id, fired = taken.run_id, this_flow_run()
    notes: list[str] | None = []
    before = begun(parameters, run_id)
    if fired.empirical_policy.pause_keys:  # it waited for an answer, which is there
        with open_run(run_id, parameters.database).connection() as connection:
            ledger.set_waiting(connection, run_id, None)
        if before == "rolled_back":
            return ended(run_id, parameters.database, ["rolled back while it waited for approval: not switched"])
    plan = open_run(run_id, parameters.database).plan
    if plan.followed and is_followed(parameters, taken, before):
        share, gates = parameters.database_share, GatesOfRun(**stated(parameters.gates))
        return follow(CatchUp(run_id=run_id, database=parameters.database, database_share=share, gates=gates))
    if before in FINISHED and fired.auto_scheduled and plan.flow_run != str(fired.id):
        raise UsageError(
            f"run {run_id} is {before.replace('_', ' ')}, so there is nothing left to do under that name: "
            "leave run_id out, and each scheduled run gets a name of its own"
        )
    with running(run_id, parameters, "run") as run:
        if run:
            reopen_named(run, parameters.batch_ids)
            expand_task(run.run_id, parameters.database)
            take_snapshot(run, parameters)
            load(run, parameters)
            passes = catch_up(run, parameters)  # goes on while the index is built
            index(run, parameters)
            notes = finish(run, parameters, passes)
    if notes is None:
        return ended(run_id, parameters.database, ["not approved: left verified"])
    return ended(run_id, parameters.database, notes=notes)


def begun(parameters: Migration, run_id: str, asks_model: bool = True) -> ledger.State:
    """Begins the run, or takes it up: its state before."""
    given, fired, missing = sorted(parameters.given()), str(this_flow_run().id), parameters.missing()
    with pace.giving_way(database_url(parameters.database), parameters.database_share):
        return begin_task(parameters.request(), run_id, given, parameters.batch_ids, fired, asks_model, missing)


def taken_up(parameters: Migration) -> TakenUp:
    """The run that is named, or the one that this flow run is about."""
    if parameters.run_id:
        return TakenUp(parameters.run_id)
    if missing := parameters.missing():
        raise UsageError(missing)
    fired = this_flow_run()
    own = own_run_id(parameters.flow)
    taken = take_up_task(parameters.request(), parameters.places(), str(fired.id), own, list(parameters.known_by))
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


def follow(parameters: CatchUp) -> State[Result]:
    """Brings a run's vectors in line with their source once more."""
    run_id = parameters.run_id
    with holding(parameters, "catch-up", ready_to_follow) as run, run.giving_way(parameters.database_share):
        if parameters.reread:
            reread_task(run.run_id, parameters.database)
        passes = catch_up(run, parameters)
        wait(passes)
        for caught_up in passes:
            caught_up.result()
    targets = outcome(run_id, parameters.database).targets
    lines = [f"caught up run {run_id}: {t.name} → {t.table}: {t.touched}{t.left}" for t in targets]
    return ended(run_id, parameters.database, lines)


def ready_to_follow(run: Run, record: ledger.RunRecord) -> None:
    """Raises UsageError for a run that has nothing to be brought in line, and with another home than its own."""
    ready_to_catch_up(run, record)
    home.check(run.plan, run.home)


def take_snapshot(run: Run, parameters: Shared, alone: bool = False) -> None:
    """Lists, fetches, lists again, and writes the manifest; ``alone`` where nothing is to follow for now."""
    with run.connection() as connection:
        fresh = 0 if alone else manifest.listings_alone(connection, run.plan)
    retry_with = resumption(run.plan, "snapshot") if alone else None
    for listing in range(fresh + snapshot.ROUNDS):
        if list_ids_task(run.run_id, parameters.database, listing, alone):
            in_chunks(run, parameters, "snapshot", snapshot_task, retry_with)
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
    bar, targets = artifacts.progress(run, "index"), run.plan.targets
    for target in targets:
        index_task(run.run_id, parameters.database, target.number, target.place.label, bar)
        artifacts.moved(run, bar, target.number + 1, len(targets))


def catch_up(run: Run, parameters: Gated) -> list[PrefectFuture[CaughtUp]]:
    """Starts catching up, one target after the other, and returns at once. ``verify`` waits for it."""
    bar, most = artifacts.progress(run, "catch-up"), gates_of(run, parameters).max_deleted
    passes: list[PrefectFuture[CaughtUp]] = []
    for t in run.plan.targets:
        what = {"run_id": run.run_id, "database": parameters.database, "number": t.number, "table": t.place.label}
        passes.append(catch_up_task.submit(**what, max_deleted=most, bar=bar, return_state=False, wait_for=passes[-1:]))
    return passes


def verify(run: Run, parameters: Gated, passes: list[PrefectFuture[CaughtUp]]) -> None:
    last = [caught_up.result().last for caught_up in passes]
    bar = artifacts.progress(run, "verify")
    verify_task(run.run_id, parameters.database, gates_of(run, parameters), last, bar)
    artifacts.moved(run, bar, 1, 1)
    with run.connection() as connection:
        ledger.set_state(connection, run.run_id, "verified")


def finish(run: Run, parameters: Shared, passes: list[PrefectFuture[CaughtUp]]) -> list[str] | None:
    """Verifies, and switches where that was asked for. Returns what is to be known of it; None where a person said no."""
    synced = all(t.place.at_once for t in run.plan.targets)
    smoke = bool(run.plan.limited)
    if synced or smoke or parameters.cutover != "auto":
        verify(run, parameters, passes)
    if smoke:
        return []
    if synced:
        return cutover_task(run.run_id, parameters.database)
    answer = approved(run, parameters.cutover)
    if answer:
        return switch(run, parameters, passes)
    return None if answer is False else []


def switch(run: Run, parameters: Gated, passes: Sequence[PrefectFuture[CaughtUp]] = ()) -> list[str]:
    """A last catch-up, once ``passes`` have ended, then verification, then the switch in one step. Returns what is
    to be known of the switch."""
    with run.connection() as connection:
        ledger.set_state(connection, run.run_id, "running")
        ledger.set_doing(connection, run.run_id, "cutover")
    wait(list(passes))
    verify(run, parameters, catch_up(run, parameters))
    notes = cutover_task(run.run_id, parameters.database)
    mirror(run)
    return notes


def mirror(run: Run) -> None:
    """Tells Prefect which vectors of live tables are meant now."""
    with run.connection() as connection:
        for active in status.active_spaces(connection, run.plan):
            artifacts.active_space(active)
