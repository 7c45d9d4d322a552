"""What the command line reads, and how it shows a flow that is going on."""

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import typer
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows import interrupt, show
from tasks import settings, status
from tasks.errors import TransientError, UsageError

QUIET = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
}
"""Set unless the user did, before Prefect is imported: its own server starts slowly and logs a lot."""


def prepare_environment() -> None:
    """Prefect kept quiet, and a process that gives way to what else its machine does: that may be the database."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if os.name == "posix":
        os.nice(NICENESS)


NICENESS = 10


def new_run_id(flow: str) -> str:
    """A name that sorts by time and that nobody else takes."""
    return f"{flow[:24]}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def pairs(given: list[str] | None) -> dict[str, Any]:
    """``key=value`` arguments as nested parameters. Raises UsageError naming the argument."""
    values: dict[str, Any] = {}
    for argument in given or []:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise UsageError(f"-p {argument}: write key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"-p {argument}: the value is no YAML ({error.__class__.__name__}); quote it") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        values = merged(values, value)
    return values


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, dictionaries merged key by key, ``above`` winning."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return both


def confirmed(question: str, as_json: bool) -> bool:
    """Asks where there is a terminal and no server of Prefect's whose pages have asked already."""
    if as_json or os.environ.get("PREFECT_API_URL") or not sys.stdin.isatty():
        return False
    return typer.confirm(question, err=True)


@contextmanager
def quiet_prefect() -> Iterator[None]:
    """A server of Prefect's: the user's own, or one that comes up now and goes with this process."""
    from flows import ephemeral
    from tasks.stores import chroma_copy

    with ExitStack() as stack:
        with show.starting():
            ephemeral.end_orphan(settings.home())
            chroma_copy.remove_left(settings.home())
            stack.enter_context(ephemeral.serving(settings.home()))
        yield


@contextmanager
def watching(run_id: str, database: str, as_json: bool) -> Iterator[None]:
    """Shows the stages as they move, read from the ledger. On no terminal it prints a line a stage."""
    interrupt.concerning(run_id, settings.database_url(database))
    if as_json:
        yield
        return
    show.err.print(f"run [bold]{run_id}[/bold]")
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(run_id, database, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(5)


def _watch(run_id: str, database: str, done: threading.Event) -> None:
    from tasks import pace
    from tasks.stores.connection import classified, connect

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    bars: dict[str, Any] = {}
    started = time.time()
    with Progress(*columns, console=show.err, transient=False) as progress:
        while not (finished := done.wait(0.5)) or finished:
            try:
                with classified("watch"), connect(settings.database_url(database), "vecferry watch") as connection:
                    lines, others = _moving(connection, run_id, started), pace.others(connection)
            except (UsageError, TransientError):
                lines, others = [], 0  # no such run yet, or the server is restarting: shown again in half a second
            for line in lines:
                name = show.WORDS.get(line["stage"], line["stage"])
                total = line["done"] + line["pending"] + line["failed"]
                if name not in bars:
                    bars[name] = progress.add_task(name, total=total, note="")
                note = f"{line['rows']:,} rows" if line["rows"] else line.get("note", "")
                if others and line["pending"]:
                    note += f", gives way to {others} other session{'s' if others > 1 else ''}"
                progress.update(bars[name], completed=line["done"], total=total, note=note)
            if finished:
                return


def _moving(connection: Any, run_id: str, started: float) -> list[dict[str, Any]]:
    from tasks import artifacts, hnsw, ledger

    if ledger.find(connection, run_id) is None:
        return []
    lines = status.stages(connection, run_id)
    if at := hnsw.progress(connection, run_id):
        phase, share = at
        lines = [line for line in lines if line["stage"] != "index"]
        lines.append(
            {"stage": "index", "done": 0, "pending": 1, "failed": 0, "rows": 0, "note": f"{phase} {share:.0%}"}
        )
    known = {line["stage"] for line in lines}
    for stage, bar in (("catch_up", "catch-up"), ("verify", "verify")):  # the ledger has these when they are done
        if stage not in known and (moved := artifacts.share(run_id, bar)) is not None:
            lines.append({"stage": stage, "done": 0, "pending": 1, "failed": 0, "rows": 0, "note": f"{moved:.0%}"})
    return lines
