"""A snapshot back into its source's kind of store."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import Restore
from flows.naming import RUNNER, run_name
from flows.outcome import Result, ended
from tasks.base.words import counted
from tasks.restore import restore_task
from tasks.runs.run import open_run
from tasks.stores.registry import opened_by


@flow(name="restore", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Restore)
def restore(parameters: Restore) -> State[Result]:
    """Write a run's snapshot into a new Chroma directory, or into JSON lines."""
    as_lines = parameters.format == "jsonl"
    written = restore_task(parameters.run_id, parameters.database, parameters.into, as_lines)
    lines = [f"{name}: {counted(rows, 'record')} restored into {parameters.into}" for name, rows in written.items()]
    store = open_run(parameters.run_id, parameters.database).plan.request.source["store"]
    note = None if as_lines else opened_by(store)
    return ended(
        parameters.run_id,
        parameters.database,
        [*lines, *([note] if note else [])],
        into=parameters.into,
        restored=written,
        note=note,
    )
