"""A snapshot back into its source's kind of store."""

from prefect import flow

from flows.forms import form
from flows.migrate import Outcome, outcome
from flows.naming import RUNNER, run_name
from flows.parameters import Restore
from tasks.restore import restore_task


@flow(name="restore", flow_run_name=run_name, task_runner=RUNNER)
@form(Restore)
def restore(parameters: Restore) -> Outcome:
    """Write a run's snapshot into a new Chroma directory, or into JSON lines."""
    written = restore_task(parameters.run_id, parameters.database, parameters.into, parameters.format == "jsonl")
    return {**outcome(parameters.run_id, parameters.database), "into": parameters.into, "restored": written}
