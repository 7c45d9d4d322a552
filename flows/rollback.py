"""The way back: before a cutover, after it, and for a sync."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import Rollback, located
from flows.migrate import mirror
from flows.naming import RUNNER, run_name
from flows.outcome import Result, ended
from flows.running import holding
from tasks.cutover import rollback_task


@flow(name="rollback", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Rollback, located)
def rollback(parameters: Rollback) -> State[Result]:
    """Take a run back: what was used before it is used again; what a switched run built is kept."""
    with holding(parameters, "rollback") as run:
        lines = rollback_task(run.run_id, parameters.database, parameters.force)
        mirror(run)
    return ended(parameters.run_id, parameters.database, lines)
