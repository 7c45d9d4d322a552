"""The end of the way back: what a rollback would need is dropped."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import Contract, located
from flows.naming import RUNNER, run_name
from flows.outcome import Result, ended
from flows.running import holding
from tasks.cutover import contract_task


@flow(name="contract", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Contract, located)
def contract(parameters: Contract) -> State[Result]:
    """Drop what a rollback would need, once the rollback window is over; refused before that."""
    with holding(parameters, "contract") as run:
        lines = contract_task(run.run_id, parameters.database, parameters.rollback_days)
    return ended(parameters.run_id, parameters.database, lines)
