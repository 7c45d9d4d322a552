"""A snapshot back into its source's kind of store."""

from prefect import State, flow

from flows.forms import form
from flows.migrate import Outcome, ended
from flows.naming import RUNNER, run_name
from flows.parameters import Restore
from tasks.restore import restore_task
from tasks.words import counted


@flow(name="restore", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Restore)
def restore(parameters: Restore) -> State[Outcome]:
    """Write a run's snapshot into a new Chroma directory, or into JSON lines."""
    from tasks.stores.chroma import opened_by  # Chroma's client is imported only where it is asked for

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
