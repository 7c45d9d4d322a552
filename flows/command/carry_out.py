"""How the command carries a flow out: it makes sure that there is something to do, calls the flow, and tells what the
ledger says of it."""

import asyncio
import concurrent.futures
import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from flows.command import arguments, commands, console, early, interrupt, watching
from flows.command.runs import check_run
from flows.command.show import terminal
from flows.command.show.run import show_done, show_outcome
from flows.forms.form import parse
from flows.forms.shared import Migration, OfRun, located
from tasks.base.errors import FatalError, VecferryError
from tasks.runs import ledger, ledger_versions, status
from tasks.runs.commands import command
from tasks.runs.database import database_url
from tasks.runs.outcome import Outcome
from tasks.stores.postgres.connection import connect

CHECKS = ("run", "cutover", "verify")
"""Verbs that end with a verification."""
WATCHED = (*CHECKS, "catch-up", "snapshot")
"""Verbs whose stages are shown as they move."""
CALLED_OFF = (asyncio.CancelledError, concurrent.futures.CancelledError)
"""What a flow ends with whose calls Prefect has given up; the former is not an Exception."""


def start(flow: str, verb: ledger.Verb, parameters: Migration, as_json: bool) -> Outcome:
    """Begins or resumes a run, up to the end of ``verb``."""
    from tasks.begin import preflight

    assert parameters.run_id
    interrupt.resume_with(commands.not_frozen(parameters))
    request = parameters.request()
    preflight(request, parameters.run_id, parameters.given(), parameters.batch_ids, parameters.missing())
    name = flow.replace("-", "_")
    with early.importing():
        body = getattr(importlib.import_module(f"flows.{name}"), f"snapshot_{name}" if verb == "snapshot" else name)
    # What was not set stays unset: what the run has already, its gates among it, is not overruled by a default.
    call = partial(body, **parameters.model_dump(by_alias=True, exclude_unset=True))
    return carry_out(call, verb, parameters.run_id, parameters.database, as_json)


def of_run(verb: ledger.Verb, form: type[OfRun], run_id: str, p: list[str] | None, as_json: bool) -> None:
    """Does ``verb`` with a run there is, and ends the command."""
    parameters = located(parse(form, {**arguments.pairs(p), "run_id": run_id}))
    check_run(run_id, parameters.database)
    name = verb.replace("-", "_")
    with early.importing():
        flow = getattr(importlib.import_module(f"flows.{name}"), name)
    call = partial(flow, **parameters.model_dump(by_alias=True, exclude_unset=True))
    sys.exit(carry_out(call, verb, run_id, parameters.database, as_json).exit)


def carry_out(
    call: Callable[[], dict[str, Any]], verb: ledger.Verb, run_id: str, database: str, as_json: bool
) -> Outcome:
    """Calls a flow, prints what came of the run and returns it, as the ledger says: Prefect's API may be gone by then. Its
    ``exit`` is 0 only where the ledger says that the verb has done its work."""
    with connect(database_url(database), "vecferry status") as connection:
        ledger_versions.bring_forward(connection)  # its refusal is told before Prefect is started
        since = ledger.clock(connection)
    failure: BaseException | None = None
    result: dict[str, Any] = {}
    with console.quiet_prefect(), watching.watching(run_id, database, as_json or verb not in WATCHED):
        try:
            result = call()
        except (Exception, asyncio.CancelledError) as error:  # told below, after what the ledger says
            if interrupt.noted():
                raise
            failure = error
    with connect(database_url(database), "vecferry status") as connection:
        if ledger.find(connection, run_id) is None and failure:
            raise failure
        outcome, done = status.outcome(connection, run_id), status.done(connection, run_id, verb, since)
        checked = verb in CHECKS and status.is_checked(connection, run_id, since)
    if failure is None and not done:
        failure = FatalError(
            f"according to the ledger, {verb} of {run_id} is not done: see {command('status', run_id, database)}"
        )
    if done and failure and not isinstance(failure, VecferryError):
        terminal.complain(
            f"{verb} of {run_id} is done, despite an error on the way: {type(failure).__name__}: {failure}"
        )
        failure = None
    if isinstance(failure, CALLED_OFF):
        failure = FatalError(
            f"Prefect called {verb} of {run_id} off; what is done is kept: see `{command('status', run_id, database)}`"
        )
    outcome = replace(
        outcome,
        exit=0 if failure is None else getattr(failure, "exit_status", 1),
        error=None if failure is None else str(failure),
    )
    show_done(result.get("done", []), as_json)
    show_outcome(outcome, as_json, checked=checked, moved=checked)
    if failure:
        raise failure
    return outcome
