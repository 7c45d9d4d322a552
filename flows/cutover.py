"""The switch, by hand: catch up, verify, and switch."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import Checked, located
from flows.migrate import switch
from flows.naming import RUNNER, run_name
from flows.outcome import Result, ended
from flows.running import running
from tasks.begin import ready_to_cut_over


@flow(name="cutover", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Checked, located)
def cutover(parameters: Checked) -> State[Result]:
    """Switch to the new vectors of a verified run: catch up and verify once more, then switch in one step."""
    with running(parameters.run_id, parameters, "cutover", ready_to_cut_over) as run:
        notes = switch(run, parameters) if run else []
    return ended(parameters.run_id, parameters.database, notes=notes)
