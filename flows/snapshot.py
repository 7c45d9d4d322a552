"""The backup alone: what a migration begins with, and may go on from at any later time."""

from datetime import datetime
from typing import Any

from prefect import State

from flows.forms.shared import Migration
from flows.migrate import begun, take_snapshot
from flows.naming import own_run_id
from flows.outcome import Result, ended
from flows.running import running
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.runs import ledger, manifest
from tasks.runs.run import Run, open_run


def snapshot(parameters: Migration) -> State[Result]:
    """Lists and fetches what a migration would begin with, and stops after the manifest; a finished one stays as it is."""
    run_id = parameters.run_id or own_run_id(parameters.flow)
    begun(parameters, run_id, asks_model=False)
    run = open_run(run_id, parameters.database)
    with run.connection() as connection:
        finished = manifest.is_finished(connection, run.plan)
    if not finished:
        with running(run_id, parameters, "snapshot", _ready):
            take_snapshot(run, parameters, alone=True)
            with run.connection() as connection:
                ledger.set_state(connection, run_id, "planned", exit_status=0)
    content = manifest.summary(run)
    return ended(run_id, parameters.database, _lines(content), snapshot=content)


def _ready(run: Run, record: ledger.RunRecord) -> None:
    with run.connection() as connection:
        loaded = manifest.has_loaded(connection, run.plan)
    if loaded or record.state not in ("planned", "running", "failed"):
        raise UsageError(
            f"run {run.run_id} is {record.state.replace('_', ' ')} and has no snapshot of all its tables: "
            f"take one under another run_id"
        )


def _lines(content: dict[str, Any]) -> list[str]:
    lines = [f"{name}: {counted(rows, 'record')}" for name, rows in content["rows"].items()]
    if content["begin"]:  # manifests of 0.1.0 do not say
        begin, end = (datetime.fromisoformat(content[name]) for name in ("begin", "end"))
        versions = ", ".join(f"{product} {version}" for product, version in content["source_version"].items())
        lines.append(f"from {begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC; {versions}")
    return [*lines, f"backup  {content['path']}"]
