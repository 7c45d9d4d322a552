"""The ``vecferry`` command: the same flows from a terminal."""

from flows.command import early  # isort: skip  # the first thing of all

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from flows.command import commands, completion, console, demos, embed, fields, ingest, interrupt, models, search, serve
from flows.command.arguments import form_of, named, pairs, parameters_of
from flows.command.carry_out import of_run, start
from flows.command.runs import check_run, note_versions, show, to_rerun
from flows.command.show import terminal
from flows.command.show.plan import show_parameters, show_plan
from flows.command.show.run import show_restored
from flows.forms.form import parse
from flows.forms.registry import FLOWS
from flows.forms.shared import CatchUp, Checked, Contract, Migration, OfRun, Restore, Rollback, located
from tasks.base import memory
from tasks.base.errors import UsageError, VecferryError
from tasks.base.words import plural
from tasks.runs import ledger
from tasks.runs.database import database_url
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import connect

early.imported()

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
        help="a parameter, key=value: keys may be dotted, values are YAML; `vecferry params FLOW` lists all",
        autocompletion=completion.parameters,
        metavar="KEY=VALUE",
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run-id", help="name the run, or resume the run of that name", autocompletion=completion.runs, metavar="RUN"
    ),
]
ParameterFile = Annotated[Path | None, typer.Option("--params", help="a YAML file of parameters", metavar="FILE")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.out.print(f"vecferry {version('vecferry')}")
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
    """List the parameters of a flow, each with its type, default and help."""
    show_parameters(fields.parameters(form_of(flow)), as_json)


@app.command()
def plan(flow: Flow, p: Parameters = None, params: ParameterFile = None, as_json: Json = False) -> None:
    """Show what a run would do, how long it would take and what it would cost; write nothing."""
    from tasks.planning.account import ask_account
    from tasks.planning.registry import make_plan

    parameters = parameters_of(flow, p, params)
    url = database_url(parameters.database)
    with connect(url, "vecferry plan") as connection, pace.giving_way(url, parameters.database_share):
        note_versions(connection)
        planned = ask_account(make_plan(connection, parameters.request(), parameters.run_id or f"{flow}-plan"))
    show_plan(planned, None if planned.problems else commands.run_command(flow, parameters), as_json)
    if planned.problems:
        raise UsageError(
            f"this plan cannot run: solve the {plural(len(planned.problems), 'problem')} above, then plan again"
        )


def _beginning(go: Callable[[str, Migration, bool], object]) -> Callable[..., None]:
    """A command that begins or resumes a migration and does ``go`` with it."""

    def begin(
        flow: Flow,
        p: Parameters = None,
        params: ParameterFile = None,
        run_id: RunName = None,
        as_json: Json = False,
    ) -> None:
        go(flow, named(flow, parameters_of(flow, p, params, run_id)), as_json)

    return begin


def _doing(verb: ledger.Verb, form: type[OfRun]) -> Callable[..., None]:
    """A command that does ``verb`` with a run there is."""

    def do(run_id: RunId, p: Parameters = None, as_json: Json = False) -> None:
        of_run(verb, form, run_id, p, as_json)

    return do


def _migrate(flow: str, parameters: Migration, as_json: bool) -> None:
    verb: ledger.Verb = "cutover" if parameters.cutover == "auto" else "run"
    outcome = start(flow, verb, parameters, as_json)
    if parameters.cutover == "ask" and outcome.state == "verified" and console.confirmed("Switch now?", as_json):
        assert parameters.run_id
        of_run("cutover", Checked, parameters.run_id, [f"database={parameters.database}"], as_json=False)
    sys.exit(outcome.exit)


app.command("run", help="Run a migration, or resume it where it stopped.")(_beginning(_migrate))
app.command(
    "snapshot",
    help="Take only the snapshot that a migration begins with; `vecferry run FLOW --run-id RUN` goes on from it.",
)(_beginning(lambda flow, parameters, as_json: start(flow, "snapshot", parameters, as_json)))


@app.command("status")
def show_status(
    run_id: Annotated[
        str | None,
        typer.Argument(help="the run's name (default: all runs)", metavar="RUN", autocompletion=completion.runs),
    ] = None,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Show runs, stages and batches, and what to do next."""
    show(run_id, p, as_json)


@app.command()
def rerun(
    run_id: RunId,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", help="a batch to run again; may be repeated (default: all failed ones)", metavar="N"),
    ] = None,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Run the failed batches again, or those named, and go on to the end."""
    flow, parameters = to_rerun(run_id, batch, p)
    _migrate(flow, parameters, as_json)


app.command("cutover", help="Catch up, verify once more and switch to the new vectors, in one transaction.")(
    _doing("cutover", Checked)
)
app.command("catch-up", help="Bring a run's vectors up to date with their source, before or after the cutover.")(
    _doing("catch-up", CatchUp)
)


@app.command()
def rollback(
    run_id: RunId,
    force: Annotated[
        bool, typer.Option("--force", help="overwrite what somebody has since put in place of a search function")
    ] = False,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Take a run back: what was used before it is used again."""
    of_run("rollback", Rollback, run_id, [*(p or []), *(["force=true"] if force else [])], as_json)


@app.command()
def contract(
    run_id: RunId,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before dropping what a rolled-back run built")] = False,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Drop what a rollback would need, once the rollback window is over; after a rollback, drop what the run built."""
    parameters = located(parse(Contract, {**pairs(p), "run_id": run_id}))
    with connect(database_url(parameters.database), "vecferry contract") as connection:
        record = ledger.get(connection, run_id)
    if record.state == "rolled_back" and not yes:
        console.allow_drop(record.plan, as_json)
    of_run("contract", Contract, run_id, [*(p or []), f"database={parameters.database}"], as_json)


app.command("verify", help="Compare what a run made with its source again; change nothing.")(_doing("verify", Checked))


@app.command()
def restore(
    run_id: RunId,
    into: Annotated[
        str | None,
        typer.Option(
            "--into", help="a directory (default: RUN-restored), a Qdrant server's URL, or a column", metavar="PLACE"
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="chroma, qdrant, column or jsonl (default: what was read)", metavar="FORMAT"),
    ] = None,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Write a run's snapshot back: into a Chroma directory of today's version, a Qdrant collection, or the old vectors into a
    column of the live tables; or into JSON lines, for any other version."""
    from flows.restore import restore as flow, written_as

    given = {name: value for name, value in {"into": into, "format": format}.items() if value is not None}
    parameters = located(parse(Restore, {**pairs(p), **given, "run_id": run_id}))
    check_run(run_id, parameters.database)
    place, in_table = parameters.into or f"{run_id}-restored", written_as(parameters) == "column"
    with console.quiet_prefect(), interrupt.keeping() if in_table else interrupt.making(place):
        restored = flow(**parameters.model_dump(by_alias=True, exclude_unset=True))
    show_restored(restored, as_json)


app.command("search", help="Search by a text: by models that tables serve, or by what a run has made.")(search.command)
app.command("ingest", help="Write text files as documents, with chunks and the vectors of a model.")(ingest.command)
app.add_typer(models.app, name="models")
app.command("embed", help="Print the vectors of images and texts: to try a model, and for queries.")(embed.command)
app.command("serve", help="Answer embeddings, searches and documents over HTTP, until Ctrl-C.")(serve.command)


@app.command()
def demo(
    flow: Annotated[
        str,
        typer.Argument(help=f"one of: {', '.join(demos.names())}", metavar="FLOW", autocompletion=completion.demos),
    ] = demos.FIRST,
    directory: Annotated[
        Path, typer.Option("--dir", help="where the demo keeps everything", metavar="DIRECTORY")
    ] = Path(".demo"),
    database: Annotated[
        str | None,
        typer.Option("--database", help="variable or Secret block with the URL of a database of yours", metavar="NAME"),
    ] = None,
) -> None:
    """Play a migration of real data, from nothing to searched and switched."""
    from flows.command.demos.ground import play

    play(flow, directory, database)


TYPER_INTERRUPTED = 130
"""What Typer makes of Ctrl-C, without a word."""


def main() -> None:
    """The command. A user's mistake is one line on standard error, never a traceback."""
    memory.starting()
    console.prepare_environment(gives_way=sys.argv[1:2] != ["serve"])
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
        terminal.complain(error)
        return error.exit_status
    return terminal.explain(error)
