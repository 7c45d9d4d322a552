"""Verification, at any later time: it reads and reports, and changes no table."""

from dataclasses import asdict

from prefect import flow

from flows.forms import form
from flows.migrate import Outcome, gates_of, giving_way, holding, outcome
from flows.naming import RUNNER, run_name
from flows.parameters import Checked
from tasks import artifacts, report
from tasks.verify import verify_task


@flow(name="verify", flow_run_name=run_name, task_runner=RUNNER)
@form(Checked)
def verify(parameters: Checked) -> Outcome:
    """Hold a run's tables against their source again and keep the report."""
    with holding(parameters) as run, giving_way(run, parameters):
        bar = artifacts.progress(run.run_id, "verify")
        found = verify_task(run.run_id, parameters.database, gates_of(parameters), None, bar)
        artifacts.moved(bar, 1, 1)
    artifacts.verification(run.run_id, report.markdown([asdict(t) for t in found]))
    return outcome(parameters.run_id, parameters.database)
