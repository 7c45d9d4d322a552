"""Catching up, at any later time: what changed at the source since reaches the new vectors, and the old ones too where the
old model is named, so that a rollback stays true."""

from prefect import State, flow
from prefect.futures import wait

from flows import migrate
from flows.forms import form
from flows.migrate import Outcome, ended, giving_way, holding, outcome
from flows.naming import RUNNER, run_name
from flows.parameters import Checked
from tasks import status
from tasks.begin import ready_to_catch_up


@flow(name="catch-up", flow_run_name=run_name, task_runner=RUNNER)
@form(Checked)
def catch_up(parameters: Checked) -> State[Outcome]:
    """Bring a run's vectors in line with their source once more, before or after the cutover."""
    ready_to_catch_up(parameters.run_id, parameters.database)
    with holding(parameters, "catch-up") as run, giving_way(run, parameters):
        passes = migrate.catch_up(run, parameters)
        wait(passes)
        for caught_up in passes:
            caught_up.result()
    targets = outcome(parameters.run_id, parameters.database)["targets"]
    lines = [f"{t['name']} → {t['table']}: {status.changes(t)}" for t in targets]
    return ended(parameters.run_id, parameters.database, lines)
