"""The terminal that the command is at: its environment, its questions, and a Prefect that keeps quiet."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper

import typer

from flows.command.show import terminal
from tasks.base import settings
from tasks.base.errors import UsageError, VecferryError
from tasks.runs.commands import command
from tasks.runs.plan import Plan

QUIET = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
}
"""Set unless the user did, before Prefect is imported: its own server starts slowly and logs a lot."""


def prepare_environment(gives_way: bool = True) -> None:
    """Prefect kept quiet, letters that the terminal does not have shown by their numbers, and a process that gives way to what else its
    machine does, unless people wait for it: that may be the database."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, TextIOWrapper):  # of standard error Python sees to it
        sys.stdout.reconfigure(errors="backslashreplace")
    if gives_way and os.name == "posix":
        os.nice(NICENESS)


NICENESS = 10


def confirmed(question: str, as_json: bool) -> bool:
    """Asks where there is a terminal and no server of Prefect's whose pages have asked already."""
    if as_json or os.environ.get("PREFECT_API_URL") or not sys.stdin.isatty():
        return False
    return typer.confirm(question, err=True)


def allow_drop(plan: Plan, as_json: bool) -> None:
    """Asks on a terminal whether what a run that was rolled back has built may go. Raises UsageError where nobody can be
    asked, and VecferryError when the answer is no."""
    names = ", ".join(target.name for target in plan.targets)
    what = f"run {plan.run_id} was rolled back: contract drops what another cutover would need ({names})"
    if as_json or not sys.stdin.isatty():
        drop = f"{command('contract', plan.run_id, plan.request.database)} --yes"
        raise UsageError(f"{what}. To drop it: {drop}")
    if not typer.confirm(f"{what}. Drop it?", err=True):
        raise VecferryError(f"nothing was dropped; run {plan.run_id} is rolled back as before")


@contextmanager
def quiet_prefect() -> Iterator[None]:
    """A server of Prefect's: the user's own, or one that comes up now and goes with this process."""
    from flows.command import ephemeral
    from tasks.stores.chroma import copy_folders

    with ExitStack() as stack:
        with terminal.passing_by("starting…"):
            ephemeral.end_orphan(settings.home())
            copy_folders.remove_left(settings.home())
            stack.enter_context(ephemeral.serving(settings.home()))
        yield
