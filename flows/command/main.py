"""The ``vecferry`` command: the same flows from a terminal."""

from flows.command import early  # isort: skip  # noqa: F401  the first thing of all

import importlib
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from flows.command import commands, completion, console, fields, interrupt, show, watching
from flows.forms.form import parse
from flows.forms.parameters import FLOWS, Base, Checked, Contract, Migration, OfRun, Restore
from tasks.base import memory
from tasks.base.errors import FatalError, UsageError, VecferryError
from tasks.runs import checkpoints, ledger, ledger_versions, manifest, status
from tasks.runs.commands import command
from tasks.runs.database import database_url
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection, connect

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Flow = Annotated[
    str, typer.Argument(help=f"one of: {', '.join(FLOWS)}", metavar="FLOW", autocompletion=completion.flows)
]
RunId = Annotated[str, typer.Argument(help="the run's name", metavar="RUN", autocompletion=completion.runs)]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        help="a parameter, key=value; keys may be dotted, values are YAML; `vecferry params FLOW` lists them",
        autocompletion=completion.parameters,
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run-id", help="name the run, or resume the one of that name", autocompletion=completion.runs, metavar="RUN"
    ),
]
ParameterFile = Annotated[Path | None, typer.Option("--params", help="a YAML file of parameters")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


def _print_version(wanted: bool) -> None:
    if wanted:
        show.out.print(f"vecferry {version('vecferry')}")
        raise typer.Exit


@app.callback()
def every(
    version_: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Move a live search system to another embedding model or vector store: verified, resumable, reversible."""


@app.command("params")
def list_parameters(flow: Flow, as_json: Json = False) -> None:
    """List the parameters of a flow, with type, default and help."""
    show.parameters(fields.parameters(_form(flow)), as_json)


@app.command()
def plan(flow: Flow, p: Parameters = None, params: ParameterFile = None, as_json: Json = False) -> None:
    """Say what a run would do, take and cost; write nothing."""
    from tasks.planning.account import ask_account
    from tasks.planning.registry import make_plan

    parameters = _parse(flow, p, params)
    url = database_url(parameters.database)
    with connect(url, "vecferry plan") as connection, pace.giving_way(url, parameters.database_share):
        _note_versions(connection)
        planned = ask_account(make_plan(connection, parameters.request(), parameters.run_id or f"{flow}-plan"))
    show.plan(planned, None if planned.problems else commands.run_command(flow, parameters), as_json)
    if planned.problems:
        problems = "problem" if len(planned.problems) == 1 else "problems"
        raise UsageError(f"this plan cannot run: solve the {problems} above, then plan again")


@app.command()
def run(
    flow: Flow,
    p: Parameters = None,
    params: ParameterFile = None,
    run_id: RunName = None,
    as_json: Json = False,
) -> None:
    """Run a migration, or resume it where it stopped."""
    parameters = _parse(flow, p, params, run_id)
    name = parameters.run_id or console.new_run_id(flow)
    _migrate(flow, parameters.model_copy(update={"run_id": name}), as_json)


@app.command()
def snapshot(
    flow: Flow,
    p: Parameters = None,
    params: ParameterFile = None,
    run_id: RunName = None,
    as_json: Json = False,
) -> None:
    """Make the backup that a migration begins with, and no more; `vecferry run FLOW --run-id RUN` goes on from it."""
    parameters = _parse(flow, p, params, run_id)
    name = parameters.run_id or console.new_run_id(flow)
    _start(flow, "snapshot", parameters.model_copy(update={"run_id": name}), as_json)


@app.command("status")
def show_status(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", autocompletion=completion.runs)] = None,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Show runs, stages and batches, and what to do next."""
    with connect(database_url(parse(Base, console.pairs(p)).database), "vecferry status") as connection:
        _note_versions(connection)
        if run_id is None:
            show.runs([status.outcome(connection, name) for name in ledger.run_ids(connection)], as_json)
        else:
            outcome = status.outcome(connection, run_id)
            show.run(outcome, status.stages(connection, run_id), status.failures(connection, run_id), as_json)


@app.command()
def rerun(
    run_id: RunId,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", help="a batch; may be repeated. All failed ones when left out")
    ] = None,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Run failed batches again, or the ones named, and go on from there."""
    with connect(_database(p), "vecferry rerun") as connection:
        record, batches = ledger.get(connection, run_id), checkpoints.batches(connection, run_id)
    failed = sorted({b.number for b in batches if b.status == "failed" and b.stage in ("snapshot", "load")})
    step = status.next_step(record, batches)
    if manifest.is_asked_for(batches):
        raise UsageError(
            f"run {run_id} is a snapshot alone so far, and rerun goes on to the end. Try it again: {step.now}"
        )
    if not batch and not failed:
        then = f". Go on with: {step.now}" if step.now else ""
        raise UsageError(f"run {run_id} has no failed batches; it is {record.state.replace('_', ' ')}{then}")
    flow = record.plan.request.flow
    values = {**console.pairs(p), "run_id": run_id, "batch_ids": list(batch or failed)}
    _migrate(flow, parse(FLOWS[flow], values), as_json)


@app.command()
def cutover(run_id: RunId, p: Parameters = None, as_json: Json = False) -> None:
    """Catch up, verify and give the run's tables their final names, in one transaction."""
    from flows.cutover import cutover as flow

    _of_run(flow, "cutover", Checked, run_id, p, as_json)


@app.command("catch-up")
def catch_up(run_id: RunId, p: Parameters = None, as_json: Json = False) -> None:
    """Bring a run's vectors in line with their source once more, before or after the cutover."""
    from flows.catch_up import catch_up as flow

    _of_run(flow, "catch-up", Checked, run_id, p, as_json)


@app.command()
def rollback(run_id: RunId, p: Parameters = None, as_json: Json = False) -> None:
    """Take a run back: earlier tables get their names again."""
    from flows.rollback import rollback as flow

    _of_run(flow, "rollback", OfRun, run_id, p, as_json)


@app.command()
def contract(
    run_id: RunId,
    yes: Annotated[bool, typer.Option("--yes", help="of a run that was rolled back: drop it without asking")] = False,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Drop the tables that stepped aside, once the rollback window is over; of a run that was rolled back, what it built."""
    from flows.contract import contract as flow

    parameters = parse(Contract, {**console.pairs(p), "run_id": run_id})
    with connect(database_url(parameters.database), "vecferry contract") as connection:
        record = ledger.get(connection, run_id)
    if record.state == "rolled_back" and not yes:
        console.allow_drop(record.plan, as_json)
    _of_run(flow, "contract", Contract, run_id, p, as_json)


@app.command()
def verify(run_id: RunId, p: Parameters = None, as_json: Json = False) -> None:
    """Hold a run's tables against their source again; change nothing."""
    from flows.verify import verify as flow

    _of_run(flow, "verify", Checked, run_id, p, as_json)


@app.command()
def restore(
    run_id: RunId,
    into: Annotated[str | None, typer.Option("--into", help="a new directory; RUN-restored when left out")] = None,
    format: Annotated[str, typer.Option("--format", help="chroma or jsonl")] = "chroma",
    as_json: Json = False,
) -> None:
    """Write a run's snapshot back into a Chroma directory of today's version, or out as JSON lines, for any other."""
    from flows.restore import restore as flow

    parameters = parse(Restore, {"run_id": run_id, "into": into or f"{run_id}-restored", "format": format})
    _check_run(run_id, parameters.database)
    with console.quiet_prefect(), interrupt.making(parameters.into):
        found = flow(**parameters.model_dump(by_alias=True))
    show.restored(found, as_json)


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="where the demo keeps everything")] = Path(".demo"),
) -> None:
    """Migrate a real Chroma collection into an embedded PostgreSQL, verify it, search it and switch it."""
    from flows.command.demo import demo as play

    play(directory)


TYPER_INTERRUPTED = 130
"""What Typer makes of Ctrl-C, without a word."""


def main() -> None:
    """The command. A user's mistake is one line on standard error, never a traceback."""
    memory.starting()
    console.prepare_environment()
    with interrupt.listening():
        try:
            status = app(standalone_mode=False) or 0
            if status == TYPER_INTERRUPTED:
                raise KeyboardInterrupt
            sys.exit(status)
        except BaseException as error:  # noqa: BLE001  the last resort: what Click, Prefect and the rest of the world can raise
            # While Prefect waits for an answer, Ctrl-C comes out as an error of its own.
            if interrupt.noted():
                interrupt.end()
            sys.exit(_end(error))


def _end(error: BaseException) -> int:
    """Says why the command ends, and returns its exit status."""
    if isinstance(error, typer.Exit | SystemExit):
        status = getattr(error, "exit_code", getattr(error, "code", None))
        return status if isinstance(status, int) else int(bool(status))
    if isinstance(error, typer.Abort):
        return 1
    if isinstance(error, VecferryError):
        show.complain(error)
        return error.exit_status
    return show.explain(error)


def _migrate(flow: str, parameters: Migration, as_json: bool) -> None:
    verb: ledger.Verb = "cutover" if parameters.cutover == "auto" else "run"
    outcome = _start(flow, verb, parameters, as_json)
    if parameters.cutover == "ask" and outcome["state"] == "verified" and console.confirmed("Switch now?", as_json):
        assert parameters.run_id
        cutover(parameters.run_id, [f"database={parameters.database}"])
    sys.exit(outcome["exit"])


def _start(flow: str, verb: ledger.Verb, parameters: Migration, as_json: bool) -> dict[str, Any]:
    """Begins or resumes a run, up to the end of ``verb``."""
    from tasks.begin import preflight
    from tasks.embedders.registry import import_ahead

    assert parameters.run_id
    interrupt.resume_with(commands.not_frozen(parameters))
    request = parameters.request()
    preflight(request, parameters.run_id, parameters.given(), parameters.batch_ids)
    name = flow.replace("-", "_")
    if verb == "snapshot":
        body = getattr(importlib.import_module("flows.snapshot"), f"snapshot_{name}")
    else:
        import_ahead(request.embedder)  # while Prefect's server answers
        body = getattr(importlib.import_module(f"flows.{name}"), name)
    # What was not set stays unset: what the run has already, its gates among it, is not overruled by a default.
    call = partial(body, **parameters.model_dump(by_alias=True, exclude_unset=True))
    return _carry_out(call, verb, parameters.run_id, parameters.database, as_json)


def _of_run(flow: Any, verb: ledger.Verb, form: type[OfRun], run_id: str, p: list[str] | None, as_json: bool) -> None:
    parameters = parse(form, {**console.pairs(p), "run_id": run_id})
    _check_run(run_id, parameters.database)
    call = partial(flow, **parameters.model_dump(by_alias=True, exclude_unset=True))
    sys.exit(_carry_out(call, verb, run_id, parameters.database, as_json)["exit"])


CHECKS = ("run", "cutover", "verify")
"""Verbs that end with a verification."""
MOVES_ROWS = (*CHECKS, "catch-up")
WATCHED = (*MOVES_ROWS, "snapshot")
"""Verbs whose stages are shown as they move."""


def _carry_out(
    call: Callable[[], dict[str, Any]], verb: ledger.Verb, run_id: str, database: str, as_json: bool
) -> dict[str, Any]:
    """Calls a flow, prints what came of the run and returns it, as the ledger says: Prefect's API may be gone by then. Its
    ``exit`` is 0 only where the ledger says that the verb has done its work."""
    with connect(database_url(database), "vecferry status") as connection:
        if ledger.exists(connection):
            ledger_versions.bring_forward(connection)  # its refusal is told before Prefect is started
        since = ledger.clock(connection)
    failure: Exception | None = None
    result: dict[str, Any] = {}
    with console.quiet_prefect(), watching.watching(run_id, database, as_json or verb not in WATCHED):
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  told below, after what the ledger says
            failure = error
    with connect(database_url(database), "vecferry status") as connection:
        if ledger.find(connection, run_id) is None and failure:
            raise failure
        outcome, done = status.outcome(connection, run_id), status.done(connection, run_id, verb, since)
        checked = verb in CHECKS and status.is_checked(connection, run_id, since)
    if failure is None and not done:
        failure = FatalError(f"{verb} of {run_id} is not done, by the ledger: {command('status', run_id, database)}")
    if done and failure and not isinstance(failure, VecferryError):
        show.complain(f"{verb} of {run_id} is done; on the way {type(failure).__name__}: {failure}")
        failure = None
    outcome["exit"] = 0 if failure is None else getattr(failure, "exit_status", 1)
    outcome["error"] = None if failure is None else str(failure)
    show.done(result.get("done", []), as_json)
    show.outcome(outcome, as_json, checked=checked, moved=checked)
    if failure:
        raise failure
    return outcome


def _database(p: list[str] | None) -> str:
    """The connection string of the database that ``-p database=NAME`` names, where the ledger is."""
    return database_url(parse(Base, {k: v for k, v in console.pairs(p).items() if k == "database"}).database)


def _note_versions(connection: Connection) -> None:
    """Says what is to be done with an older ledger, which is read as it is."""
    if line := ledger_versions.notice(connection):
        show.note(line)


def _check_run(run_id: str, database: str) -> None:
    """Raises UsageError before Prefect is started when there is no such run."""
    with connect(database_url(database), "vecferry status") as connection:
        ledger.get(connection, run_id)


def _parse(flow: str, p: list[str] | None, params: Path | None, run_id: str | None = None) -> Migration:
    form = _form(flow)
    values: dict[str, Any] = {}
    if params is not None:
        try:
            values = yaml.safe_load(params.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"--params {params}: {error}") from error
        if not isinstance(values, dict):
            raise UsageError(f"--params {params} must hold one mapping of parameters")
    values = console.merged(values, console.pairs(p))
    if run_id is not None:
        values["run_id"] = run_id
    return parse(form, values)


def _form(flow: str) -> type[Migration]:
    """The form of a flow. Raises UsageError, with those there are, when there is none of that name."""
    if flow not in FLOWS:
        near = get_close_matches(flow, FLOWS, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        raise UsageError(f"there is no flow {flow!r}; {hint}: {', '.join(FLOWS)}")
    return FLOWS[flow]
