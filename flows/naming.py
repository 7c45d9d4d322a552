"""How flow runs are called and run, the same for all flows."""

from typing import Any

from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

RUNNER: Any = ThreadPoolTaskRunner(max_workers=64)
"""Bounds nothing: the flow submits ``workers`` chunks at a time. Unset, Prefect's pool grows without a limit."""


def run_name() -> str:
    """flow · run id, so that reruns of one run stand together."""
    run_id = flow_run.parameters.get("run_id")
    return f"{flow_run.flow_name} · {run_id or str(flow_run.id)[:8]}"
