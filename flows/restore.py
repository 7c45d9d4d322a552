"""A snapshot back into its source's kind of store."""

from typing import Any

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import Restore, located
from flows.naming import RUNNER, run_name
from flows.outcome import Result, ended
from tasks.base.errors import UsageError
from tasks.base.words import agreeing, counted
from tasks.restore import refill_task, restore_task
from tasks.runs import artifacts
from tasks.runs.holding import sole_runner
from tasks.runs.run import Run, open_run
from tasks.shadows.difference import Refilled
from tasks.shadows.registry import takes_back
from tasks.stores.registry import opened_by


@flow(name="restore", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Restore, located)
def restore(parameters: Restore) -> State[Result]:
    """Write a run's snapshot into a new store of its source's kind, into a column of its live tables, or into JSON lines."""
    run, written = open_run(parameters.run_id, parameters.database), written_as(parameters)
    return _column(parameters, run) if written == "column" else _directory(parameters, run, written == "jsonl")


def written_as(parameters: Restore) -> str:
    """The format that is asked for, or that of what the run read. Raises UsageError for that of another kind of store."""
    run = open_run(parameters.run_id, parameters.database)
    store, in_column = run.plan.request.source["store"], takes_back(run)
    written = parameters.format or ("column" if in_column else store)
    if written not in ("column", "jsonl", store) and not in_column:
        raise UsageError(
            f"run {run.run_id} read {store}, and its snapshot is written back into such a store: leave format out"
        )
    return written


def _directory(parameters: Restore, run: Run, as_lines: bool) -> State[Result]:
    into = parameters.into or f"{run.run_id}-restored"
    rows = restore_task(parameters.run_id, parameters.database, into, as_lines)
    note = None if as_lines else opened_by(run.plan.request.source["store"], into)
    return _ended(parameters, into, rows, [], [note] if note else [], note=note)


def _column(parameters: Restore, run: Run) -> State[Result]:
    if not takes_back(run):
        raise UsageError(
            f"run {run.run_id} has no live tables, whose columns its snapshot could be written into: leave format out"
        )
    if parameters.into is None:
        raise UsageError("into is missing: name the column that the old vectors are written into, --into COLUMN")
    with sole_runner(run.url, run.run_id), run.kept_open(), run.giving_way(parameters.database_share):
        bar = artifacts.progress(run, "restore")
        written = refill_task(run.run_id, parameters.database, parameters.into, bar)
        artifacts.moved(run, bar, 1, 1)
    rows = {name: filled.restored for name, filled in written.tables.items()}
    left = {
        name: {"gone": filled.gone.count, "changed": filled.changed.count, "taken": filled.taken.count}
        for name, filled in written.tables.items()
    }
    told = [line for name, filled in written.tables.items() for line in _left(name, filled)]
    return _ended(parameters, parameters.into, rows, told, list(written.advice), note=None, left_out=left)


def _ended(
    parameters: Restore, into: str, rows: dict[str, int], told: list[str], notes: list[str], **more: Any
) -> State[Result]:
    lines = [f"{name}: {counted(count, 'record')} restored into {into}" for name, count in rows.items()]
    result = {"into": into, "restored": rows, "remarks": [*told, *notes], **more}
    return ended(parameters.run_id, parameters.database, lines, [*told, *notes], **result)


def _left(name: str, filled: Refilled) -> list[str]:
    """A line for each reason that rows of a table were left out for."""
    gone, changed, taken = filled.gone, filled.changed, filled.taken
    lines = {
        f"{counted(gone.count, 'row', 'are')} not there any more{gone.first}": gone,
        f"{counted(changed.count, 'row', 'were')} left out because {agreeing(changed.count, 'their')} text has "
        f"changed{changed.first}": changed,
        f"{counted(taken.count, 'row', 'have')} another vector by now and {agreeing(taken.count, 'were')} left alone{taken.first}": taken,
    }
    return [f"{name}: {line}" for line, rows in lines.items() if rows.count]
