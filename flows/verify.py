"""Verification, at any later time: it reads and reports, and changes nothing else."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.shared import Checked, located
from flows.naming import RUNNER, run_name
from flows.outcome import Result, ended
from flows.running import gates_of, holding
from tasks.base.words import counted
from tasks.begin import refuse_dropped
from tasks.runs import artifacts, home
from tasks.runs.ledger import RunRecord
from tasks.runs.run import Run
from tasks.verify import verify_task


@flow(name="verify", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Checked, located)
def verify(parameters: Checked) -> State[Result]:
    """Compare what a run made with its source again, and keep the report."""
    with (
        holding(parameters, "verify", _ready) as run,
        run.giving_way(parameters.database_share),
    ):
        bar = artifacts.progress(run, "verify")
        reports = verify_task(run.run_id, parameters.database, gates_of(run, parameters), None, bar)
        artifacts.moved(run, bar, 1, 1)
    lines = [f"{t.name} → {t.table}: {counted(len(t.checks), 'check')} passed" for t in reports]
    return ended(parameters.run_id, parameters.database, lines)


def _ready(run: Run, record: RunRecord) -> None:
    refuse_dropped(record)
    home.check(run.plan, run.home)
