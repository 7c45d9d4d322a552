"""A snapshot back into its source's kind of store."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import Restore
from flows.naming import RUNNER, run_name
from flows.outcome import Result, ended
from tasks.base.words import counted
from tasks.restore import restore_task


@flow(name="restore", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Restore)
def restore(parameters: Restore) -> State[Result]:
    """Write a run's snapshot into a new Chroma directory, or into JSON lines."""
    from tasks.stores.chroma.store import opened_by

    as_lines = parameters.format == "jsonl"
    written = restore_task(parameters.run_id, parameters.database, parameters.into, as_lines)
    lines = [f"{name}: {counted(rows, 'record')} restored into {parameters.into}" for name, rows in written.items()]
    note = None if as_lines else opened_by()
    return ended(
        parameters.run_id,
        parameters.database,
        [*lines, *([note] if note else [])],
        into=parameters.into,
        restored=written,
        note=note,
    )
