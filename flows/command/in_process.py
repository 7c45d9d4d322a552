"""A migration that a program of the user's calls, without the command and without a deployment."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flows.command import console


def run(flow: str, given: Mapping[str, Any], progress: bool) -> dict[str, Any]:
    """Begins a run of that flow with these parameters, or goes on with it, as `vecferry run` does; returns what it has come to.
    ``progress`` shows its stages on standard error. Raises what the flow raises."""
    console.prepare_environment(gives_way=False)  # before Prefect is imported
    from flows.command import arguments, early, watching
    from flows.forms.form import parse
    from tasks.begin import preflight

    with early.importing():
        parameters = arguments.named(flow, parse(arguments.form_of(flow), dict(given)))
        run_id, name = parameters.run_id, flow.replace("-", "_")
        assert run_id
        preflight(parameters.request(), run_id, parameters.given(), parameters.batch_ids, parameters.missing())
        body = getattr(import_module(f"flows.{name}"), name)
    with console.quiet_prefect(), watching.watching(run_id, parameters.database, quiet=not progress):
        result: dict[str, Any] = body(**parameters.model_dump(by_alias=True, exclude_unset=True))
    return result
