"""Catching up, at any later time: what changed at the source since reaches the new vectors, and the old ones too where the
old model is named, so that a rollback stays true."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import CatchUp, located
from flows.migrate import follow
from flows.naming import RUNNER, run_name
from flows.outcome import Result


@flow(name="catch-up", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(CatchUp, located)
def catch_up(parameters: CatchUp) -> State[Result]:
    """Bring a run's vectors up to date with their source, before or after the cutover."""
    return follow(parameters)
