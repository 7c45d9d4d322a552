"""Who decides on the cutover: nobody yet, a person, or the verification alone."""

import os

from prefect import pause_flow_run, suspend_flow_run
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.runtime import deployment

from flows.forms.shared import Cutover
from tasks.runs import ledger
from tasks.runs.run import Run

A_DAY = 86_400


class Approve(RunInput):
    """The form that a person answers in the Prefect UI."""

    approve: bool = False


def approved(run: Run, cutover: Cutover) -> bool | None:
    """Whether to switch now; None where nobody was asked. ``ask`` waits a day for an answer in the Prefect UI, and no answer
    is a no; without a Prefect server of the user's the run ends verified, and the command asks on its terminal."""
    if cutover == "auto":
        return True
    if cutover == "manual" or not os.environ.get("PREFECT_API_URL"):
        return None
    names = ", ".join(t.name for t in run.plan.targets)
    with run.connection() as connection:
        ledger.set_waiting(connection, run.run_id, A_DAY)
    question = f"Run {run.run_id} is verified. Switch to its new vectors ({names})?"
    answers = "With Approve on it is switched now, off it is left verified."
    wait_for = Approve.with_initial_data(description=f"{question} {answers}\n\nThe report: `{run.path('report.html')}`")
    # With a deployment the worker is freed while a person thinks; the flow starts over then, and the ledger skips what is
    # done. Without one this process waits.
    wait = suspend_flow_run if deployment.id else pause_flow_run
    try:
        answer = wait(wait_for_input=wait_for, timeout=A_DAY).approve
    except FlowPauseTimeout:
        answer = False
    with run.connection() as connection:
        ledger.set_waiting(connection, run.run_id, None)
    return bool(answer)
