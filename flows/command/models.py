"""What ``vecferry models`` does: tables that serve several models."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from flows.command import console
from flows.command.arguments import merged, pairs
from flows.command.show.models import show_changes, show_done, show_models, show_status
from flows.forms.form import parse
from flows.forms.models import ModelsActivate, ModelsInit, ModelsRetire, ModelsSetup, OfTables

app = typer.Typer(
    help="Serve several models from one set of tables: prepare them, add models, and switch between these.",
    no_args_is_help=True,
)
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", help="a parameter, key=value, such as roles.chunks=passages", metavar="KEY=VALUE"),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
Plan = Annotated[bool, typer.Option("--plan", help="show the SQL that would be sent; write nothing")]
Name = Annotated[str, typer.Argument(help="a model; its provider may be left out", metavar="NAME")]


@app.command("init")
def init(p: Parameters = None, plan: Plan = False, as_json: Json = False) -> None:
    """Prepare tables to serve several models; vectors that are there stay where they are, and are searched throughout."""
    parameters = parse(ModelsInit, pairs(p))
    if plan:
        show_changes(_planned_init(parameters), as_json)
    else:
        _carry_out("models_init", parameters, as_json)


@app.command("setup")
def setup(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="a model to serve, provider/model (default: those that are registered)", metavar="MODEL"),
    ] = None,
    p: Parameters = None,
    plan: Plan = False,
    as_json: Json = False,
) -> None:
    """Register models, and make the column and the index of each number of dimensions."""
    given = {"models": list(models)} if models else {}
    parameters = parse(ModelsSetup, merged(pairs(p), given))
    if plan:
        show_changes(_planned_setup(parameters), as_json)
    else:
        _carry_out("models_setup", parameters, as_json)


@app.command("list")
def list_models(p: Parameters = None, as_json: Json = False) -> None:
    """List the models that the tables serve, and how much each covers."""
    _show(p, as_json, show_models)


@app.command("status")
def status(p: Parameters = None, as_json: Json = False) -> None:
    """Show the tables, their models, dimensions and indexes."""
    _show(p, as_json, show_status)


@app.command("activate")
def activate(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="even if it does not cover all chunks")] = False,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Make a model the default of new searches and new documents, in one transaction."""
    given: dict[str, Any] = {"model": name} | ({"force": True} if force else {})
    _carry_out("models_activate", parse(ModelsActivate, merged(pairs(p), given)), as_json)


@app.command("retire")
def retire(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="even if a run needs it")] = False,
    p: Parameters = None,
    as_json: Json = False,
) -> None:
    """Stop searching by a model; its vectors stay until a second retire after the window."""
    given: dict[str, Any] = {"model": name} | ({"force": True} if force else {})
    _carry_out("models_retire", parse(ModelsRetire, merged(pairs(p), given)), as_json)


def _carry_out(flow: str, parameters: OfTables, as_json: bool) -> None:
    from flows.served import preflight

    preflight(parameters)
    with console.quiet_prefect():
        from flows import models

        done = getattr(models, flow)(**parameters.model_dump(by_alias=True, exclude_unset=True))
    show_done(done["done"], as_json)


def _show(p: list[str] | None, as_json: bool, show: Callable[..., None]) -> None:
    from flows.command.runs import note_versions
    from tasks.runs import served
    from tasks.runs.database import connect, database_url, refusable
    from tasks.stores.postgres import model_tables

    parameters = parse(OfTables, pairs(p))
    database = database_url(parameters.database)
    with connect(database, "vecferry models") as connection, refusable("look at the models"):
        note_versions(connection)
        seen = served.status(connection, model_tables.find(connection, parameters.roles.resolved()))
    show(seen, as_json)


def _planned_init(parameters: ModelsInit) -> Any:
    from flows.served import planned_init

    return planned_init(parameters)


def _planned_setup(parameters: ModelsSetup) -> Any:
    from flows.served import planned_setup

    return planned_setup(parameters)
