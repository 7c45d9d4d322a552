"""What flow runs, and the runs that nobody named, are called; the same for all flows."""

from datetime import UTC
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime import deployment, flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows import schedule_overrides
from tasks.runs.names import generated_run_id

RUNNER: Any = ThreadPoolTaskRunner(max_workers=64)
"""Bounds nothing: the flow submits ``workers`` chunks at a time. Unset, Prefect's pool grows without a limit."""


def run_name() -> str:
    """What a flow run is called."""
    flow, given = flow_run.flow_name, schedule_overrides.effective(flow_run.parameters)
    return named_after(flow, given.get("run_id") or own_run_id(flow))


def named_after(flow: str, run_id: str) -> str:
    """flow · run id, so that reruns of one run stand together; the run id alone where it names the flow."""
    return run_id if run_id.startswith(f"{flow}-") else f"{flow} · {run_id}"


def own_run_id(flow: str) -> str:
    """The name of a run that nobody named: of this flow run alone, and the same when it is retried or goes on after an
    approval."""
    current = this_flow_run()
    due = current.expected_start_time or current.created
    assert due is not None
    # The end of the id: the scheduler makes ids in one go, and these begin alike.
    return generated_run_id(flow, due.astimezone(UTC), str(current.id)[-8:])


def this_flow_run() -> FlowRun:
    """The flow run that calls this, as it was when it began."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("not called within a flow run")
    return context.flow_run


def place_of_parameters() -> str | None:
    """Where the parameters of this flow run are set, when a schedule made it; None when a person gave them."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not context.flow_run.auto_scheduled:
        return None
    where = f"Deployments → {flow_run.flow_name}/{deployment.name} → ⋮ → Edit → Parameters"
    return f"A schedule started this run; set its parameters in the Prefect UI: {where}"
