"""Who decides on the cutover: nobody yet, a person, or the verification alone."""

import os

from prefect import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment

from flows.parameters import Cutover
from tasks.run import Run

A_DAY = 86_400


class Approve(RunInput):
    """The form that a person answers in the Prefect UI."""

    approve: bool = False


def approved(run: Run, cutover: Cutover) -> bool:
    """Whether to switch now. ``ask`` waits a day for an answer in the Prefect UI; without a Prefect server of the user's
    the run ends verified, and the command asks on its terminal."""
    if cutover != "ask":
        return cutover == "auto"
    names = ", ".join(t.name for t in run.plan.targets)
    if not os.environ.get("PREFECT_API_URL"):
        return False
    question = f"Run {run.run_id} is verified. Give its tables their final names ({names})?"
    wait_for = Approve.with_initial_data(description=f"{question}\n\nThe report: `{run.path('report.html')}`")
    if deployment.id:
        # Frees the worker while a person thinks; the flow starts over then, and the ledger skips what is done.
        return bool(suspend_flow_run(wait_for_input=wait_for, timeout=A_DAY).approve)
    return bool(pause_flow_run(wait_for_input=wait_for, timeout=A_DAY).approve)
