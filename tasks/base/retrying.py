"""How every task of vecferry retries: what may pass by itself, with backoff and jitter, and nothing else.

The first retry comes after ``VECFERRY_RETRY_SECONDS`` (1), each later one after twice the time.
"""

import os
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from tasks.base.errors import TransientError

RETRIES = 4
FIRST_DELAY = float(os.environ.get("VECFERRY_RETRY_SECONDS", "1"))


def only_transient(task: "Task[Any, Any]", task_run: TaskRun, state: "State[Any]") -> bool:
    """Whether the failure is a TransientError."""
    try:
        state.result()
    except TransientError:
        return True
    except Exception:  # noqa: BLE001  the state carries whatever the task raised
        return False
    return False


RETRYING: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(backoff_factor=FIRST_DELAY),
    "retry_jitter_factor": 1.0,
    "retry_condition_fn": only_transient,
    # The default policy hashes the inputs of every task run; the ledger is what says that work is done.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
