"""What the command line reads and prints. Results go to standard output, progress and complaints to standard error."""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tasks import files, settings, status
from tasks.errors import TransientError, UsageError
from tasks.ledger import Batch

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

QUIET = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
}
"""Set unless the user did, before Prefect is imported: its own server starts slowly and logs a lot."""
WORDS = {"catch_up": "catch up", "list": "list ids"}


def prepare_environment() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


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


@contextmanager
def quiet_prefect() -> Iterator[None]:
    """Ends the server process that a killed predecessor left behind, and records ours."""
    from flows import ephemeral

    ephemeral.end_orphan(settings.home())
    with ephemeral.recorded(settings.home()):
        yield


@contextmanager
def watching(run_id: str, database: str, as_json: bool) -> Iterator[None]:
    """Shows the stages as they move, read from the ledger. On no terminal it prints a line a stage."""
    if as_json:
        yield
        return
    err.print(f"run [bold]{run_id}[/bold]")
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(run_id, database, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(5)


def _watch(run_id: str, database: str, done: threading.Event) -> None:
    from tasks.stores.postgres import connect

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    bars: dict[str, Any] = {}
    started = time.time()
    with Progress(*columns, console=err, transient=False) as progress:
        while not (finished := done.wait(0.5)) or finished:
            try:
                with connect(settings.database_url(database), "vecferry watch") as connection:
                    lines = _moving(connection, run_id, started)
            except (UsageError, TransientError):
                lines = []  # no such run yet, or the server is restarting: shown again in half a second
            for line in lines:
                name = WORDS.get(line["stage"], line["stage"])
                total = line["done"] + line["pending"] + line["failed"]
                if name not in bars:
                    bars[name] = progress.add_task(name, total=total, note="")
                note = f"{line['rows']:,} rows" if line["rows"] else line.get("note", "")
                progress.update(bars[name], completed=line["done"], total=total, note=note)
            if finished:
                return


def _moving(connection: Any, run_id: str, started: float) -> list[dict[str, Any]]:
    from tasks import index, ledger

    if ledger.find(connection, run_id) is None:
        return []
    lines = status.stages(connection, run_id)
    for target in ledger.get(connection, run_id).plan.targets:
        if at := index.progress(connection, target):
            phase, share = at
            lines = [line for line in lines if line["stage"] != "index"]
            lines.append(
                {"stage": "index", "done": 0, "pending": 1, "failed": 0, "rows": 0, "note": f"{phase} {share:.0%}"}
            )
    return lines


def show_plan(planned: Any, as_json: bool) -> None:
    plan = planned.plan
    if as_json:
        _print_json(
            {
                "flow": plan.request.flow,
                "rows": planned.rows,
                "batches": planned.batches,
                "storage_bytes": planned.storage_bytes,
                "seconds": round(planned.seconds),
                "targets": [
                    {
                        "name": t.collection.name,
                        "table": t.name,
                        "mode": t.mode,
                        "rows": t.collection.count,
                        "dimensions": t.dimensions,
                        "metric": t.collection.metric,
                        "type": t.type,
                        "metadata": look.metadata,
                    }
                    for t, look in zip(plan.targets, planned.looks, strict=True)
                ],
                "sql": planned.sql,
                "problems": planned.problems,
                "warnings": planned.warnings,
            }
        )
        return
    table = Table(box=None, pad_edge=False)
    for column in ("collection", "table", "how", "rows", "dims", "metric", "metadata keys"):
        table.add_column(column, justify="right" if column in ("rows", "dims") else "left", overflow="fold")
    for target, look in zip(plan.targets, planned.looks, strict=True):
        keys = ", ".join(f"{key} ({'/'.join(types)})" for key, types in look.metadata.items())
        c = target.collection
        table.add_row(
            c.name, target.name, target.mode, f"{c.count:,}", str(target.dimensions or "–"), c.metric, keys or "–"
        )
    out.print(table)
    cost = f"about {_duration(planned.seconds)} and {planned.storage_bytes / 1e6:,.1f} MB"
    out.print(f"\n{planned.rows:,} rows in {planned.batches} batches; {cost}")
    out.print("\nSQL that changes something:")
    for line in planned.sql:
        out.print(f"  {line};" if not line.startswith("--") else f"  {line}", markup=False)
    for warning in planned.warnings:
        out.print(f"\n[yellow]note[/yellow]  {warning}")
    for problem in planned.problems:
        out.print(f"\n[red]problem[/red]  {problem}")


def show_runs(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    if not found:
        out.print("no runs yet; start with: vecferry plan chroma-to-pgvector -p chroma.path=DIRECTORY")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "rows", "quarantined", "failed batches", "next"):
        table.add_column(column, overflow="fold")
    for run in found:
        targets = run["targets"]
        table.add_row(
            run["run_id"],
            run["state"],
            f"{sum(t['rows'] for t in targets):,}",
            str(sum(t["quarantined"] for t in targets)),
            ", ".join(str(b) for t in targets for b in t["failed_batches"]) or "–",
            run["next"] or "–",
        )
    out.print(table)


def show_run(
    found: dict[str, Any], error: str | None, stages: list[dict[str, Any]], failed: list[Batch], as_json: bool
) -> None:
    if as_json:
        _print_json(found)
        return
    out.print(f"{found['run_id']}: [bold]{found['state']}[/bold]" + (f"  {error}" if error else ""))
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "done", "pending", "failed", "rows", "quarantined", "seconds"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for line in stages:
        name = WORDS.get(line["stage"], line["stage"])
        table.add_row(name, *(f"{line[c]:,}" for c in ("done", "pending", "failed", "rows", "quarantined", "seconds")))
    out.print(table)
    for batch in failed[:20]:
        out.print(
            f"batch {batch.number} failed in {batch.stage} after {batch.attempts} attempts: {batch.error}", markup=False
        )
    _print_tail(found)


def show_outcome(found: dict[str, Any], as_json: bool, checked: bool = True) -> None:
    """What a run has come to; with the verification table where this command made or used it."""
    if as_json:
        _print_json(found)
        return
    if checked and found["report"]:
        show_checks(found["report"].removesuffix("html") + "json")
    for t in found["targets"] if checked else []:
        touched = ", ".join(f"{count:,} {how}" for how, count in t["touched"].items() if count)
        what = (
            f"{t['loaded']:,} rows loaded" if t["mode"] != "sync" else f"synced in place: {touched or '0 rows touched'}"
        )
        more = f"; caught up: {touched}" if touched and t["mode"] != "sync" else ""
        held = f"; [red]{t['quarantined']} quarantined[/red]" if t["quarantined"] else ""
        out.print(f"{t['name']} → {t['table']}: {what}{more}{held}")
    out.print(f"[bold]{found['state']}[/bold]")
    _print_tail(found)


def show_checks(path: str) -> None:
    """The verification table of a report."""
    data = json.loads(files.read(path))
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "found", "wanted", "looked at"):
        table.add_column(column, justify="right" if column == "looked at" else "left", overflow="fold")
    for target in data["targets"]:
        for check in target["checks"]:
            mark = "[green]✓[/green]" if check["passed"] else "[red]✗[/red]"
            table.add_row(mark, check["name"], check["found"], check["wanted"], f"{check['looked_at']:,}")
        for note in target["notes"]:
            table.add_row("", "note", note, "", "")
    out.print(table)


def show_done(lines: list[str], as_json: bool) -> None:
    if not as_json:
        for line in lines:
            out.print(line, markup=False)


def show_restored(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    for name, rows in found["restored"].items():
        out.print(f"{name}: {rows:,} records restored into {found['into']}")


def complain(problem: object) -> None:
    err.print(f"[red]vecferry:[/red] {problem}", markup=True) if isinstance(problem, str) else err.print(
        "[red]vecferry:[/red]", str(problem), markup=True
    )


def explain(error: Exception) -> int:
    """One line for an error nobody classed; the traceback where VECFERRY_DEBUG asks for it. Returns the exit status."""
    if usage := getattr(error, "format_message", None):  # Click's own complaints about arguments
        complain(usage())
        return 2
    if os.environ.get("VECFERRY_DEBUG"):
        err.print_exception()
    complain(f"{type(error).__name__}: {error} (VECFERRY_DEBUG=1 shows where; `vecferry status` says how to go on)")
    return 1


def _print_tail(found: dict[str, Any]) -> None:
    if found["report"]:
        out.print(f"report  {found['report']}", markup=False)
    if found["next"]:
        out.print(f"next    {found['next']}", markup=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=str))


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
