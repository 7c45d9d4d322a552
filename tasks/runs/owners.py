"""Which run a flow run without a run_id is about: its own, the one that the vectors it asks for belong to, or a new one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from prefect import task

from tasks.base.errors import UsageError
from tasks.base.retrying import RETRYING
from tasks.embedders.naming import parse_model
from tasks.runs import ledger, ledger_versions, models
from tasks.runs.commands import command
from tasks.runs.database import database_url
from tasks.runs.plan import Request, differences
from tasks.stores.postgres.connection import Connection, connect, refusable
from tasks.stores.postgres.live_table import place


@dataclass(frozen=True)
class TakenUp:
    """The run that a flow run works on."""

    run_id: str
    owned: bool = False
    """Whether it was begun by another flow run, or a command, and was found by the vectors that belong to it."""


def take_up(
    request: Request, places: Sequence[tuple[str, str]], flow_run: str, name: str, known_by: Sequence[str] = ()
) -> TakenUp:
    """The run that this flow run began; else the run that the vectors belong to; else a new one of that ``name``. ``places``
    are the vectors that are asked for: each a table, as it was named, and a column. Where they lie in no table, ``known_by`` are
    the parameters that tell.

    Raises UsageError when a table is not there, when the vectors belong to several runs, or to one that is not to be gone
    on with, and when there is a run of that name already.
    """
    with connect(database_url(request.database), "vecferry begin") as connection, refusable("begin"):
        named = [(*place(connection, table), column) for table, column in places]
        ledger_versions.bring_forward(connection)
        if not ledger.exists(connection):
            return TakenUp(name)
        if begun := begun_by(connection, flow_run):
            return TakenUp(begun)
        if owner := owner_of(connection, named, request.embedder) or with_parameters(connection, request, known_by):
            return TakenUp(_usable(connection, owner, request), owned=True)
        if ledger.find(connection, name):
            raise UsageError(f"run {name} already exists, and this flow run did not begin it: give another run_id")
        return TakenUp(name)


def begun_by(connection: Connection, flow_run: str) -> str | None:
    """The run that a flow run began, by the id of the flow run."""
    row = connection.execute("SELECT run_id FROM vecferry.run WHERE plan ->> 'flow_run' = %s", (flow_run,)).fetchone()
    return row[0] if row else None


def owner_of(connection: Connection, places: Iterable[tuple[str, str, str]], embedder: str | None = None) -> str | None:
    """The run that has all the places, each a schema, a table and a column; or had, by that model, where its cutover has renamed
    them. Raises UsageError when only some of them are taken, or by several runs."""
    owners: dict[str, str | None] = {}
    for schema, table, column in places:
        model = models.at(connection, schema, table, column)
        run = model.run_id if model else None
        if model is None or (run and not _is_of(connection, run, embedder)):
            run = _began(connection, (schema, table, column), embedder) or run
        owners[f"{schema}.{table}.{column}"] = run
    runs = set(owners.values())
    if len(runs) > 1:
        told = ", ".join(f"{name} to {f'run {run}' if run else 'no run'}" for name, run in owners.items())
        raise UsageError(
            f"these belong to different runs: {told}. Ask for those of one run only, or name the run with run_id"
        )
    return runs.pop() if runs else None


def with_parameters(connection: Connection, request: Request, known_by: Sequence[str]) -> str | None:
    """The latest run of the flow, of which something is left, that was asked for with the same values of these parameters."""
    for run_id in ledger.run_ids(connection) if known_by else ():
        record = ledger.get(connection, run_id)
        frozen = record.plan.request
        if frozen.flow == request.flow and not record.dropped and not differences(request, frozen, set(known_by)):
            return run_id
    return None


def _began(connection: Connection, place: tuple[str, str, str], embedder: str | None) -> str | None:
    """The last run that began to make vectors of that model in a column, whose cutover has renamed it since: another model's are
    another migration, which the name is free for."""
    if not models.exists(connection):
        return None
    schema, table, column = place
    runs = connection.execute(
        "SELECT m.run_id FROM vecferry.model m JOIN vecferry.relation r USING (run_id, target) WHERE m.state <> 'retired' "
        "AND (r.source ->> 'table', r.source ->> 'column') = (%s, %s) ORDER BY m.model DESC",
        (f"{schema}.{table}", column),
    ).fetchall()
    return next((run for (run,) in runs if _is_of(connection, run, embedder)), None)


def _is_of(connection: Connection, run_id: str, asked_for: str | None) -> bool:
    """Whether a run makes the vectors of that model, whatever its options."""
    made_by = ledger.get(connection, run_id).plan.request.embedder
    if made_by is None or asked_for is None:
        return True
    one, other = parse_model(made_by), parse_model(asked_for)
    return (one.provider, one.model, one.revision) == (other.provider, other.model, other.revision)


def _usable(connection: Connection, run_id: str, request: Request) -> str:
    record = ledger.get(connection, run_id)
    whose = f"{', '.join(t.name for t in record.plan.targets)} belongs to run {run_id}"
    of_run = partial(command, run_id=run_id, database=record.plan.request.database)
    if record.state == "rolled_back":
        raise UsageError(
            f"{whose}, which was rolled back: switch it again, {of_run('cutover')}; or drop it, "
            f"{of_run('contract')}; or resume it by name, run_id={run_id}"
        )
    if record.plan.limited and not request.limit:
        raise UsageError(f"{whose}, a smoke run: drop it first, {of_run('rollback')}")
    return run_id


@task(name="find the run", task_run_name="find the run of {request.flow}", **RETRYING)
def take_up_task(
    request: Request, places: list[tuple[str, str]], flow_run: str, name: str, known_by: list[str]
) -> TakenUp:
    return take_up(request, places, flow_run, name, known_by)
