"""What Prefect's pages show of a run. The ledger is the record; an artifact that cannot be written stops nothing."""

import contextvars
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.variables import Variable

from tasks.base.progress import Tell
from tasks.runs.checkpoints import Batch
from tasks.runs.run import Run
from tasks.runs.status import ActiveSpace

P = ParamSpec("P")
POLL = 2.0
"""Seconds between two looks at a long statement."""

logger = logging.getLogger("vecferry")


@dataclass
class Bars:
    """The progress bars of a run that this process moves."""

    stages: dict[UUID, str] = field(default_factory=dict)
    """What each bar is of."""
    shares: dict[str, float] = field(default_factory=dict)
    """Stage → how far it is, from 0 to 1."""


def _shown(publish: Callable[P, Any]) -> Callable[P, Any]:
    @wraps(publish)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return publish(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  the API may be gone while the work goes on
            logger.warning("%s: the artifact was not written: %s", publish.__name__, error)
            return None

    return wrapped


@_shown
def progress(run: Run, stage: str) -> UUID | None:
    """A progress bar at 0."""
    bar: Any = create_progress_artifact(0.0, key=_key(run.run_id, stage), description=f"{stage} of {run.run_id}")
    bars = run.own(Bars, Bars)
    bars.stages[bar], bars.shares[stage] = stage, 0.0
    return bar


@_shown
def moved(run: Run, bar: UUID | None, done: int, total: int) -> None:
    """Moves a progress bar."""
    if bar is not None:
        bars = run.own(Bars, Bars)
        bars.shares[bars.stages[bar]] = done / max(1, total)
        update_progress_artifact(bar, 100.0 * done / max(1, total))


def share(run: Run, stage: str) -> float | None:
    """How far a stage is, from 0 to 1, when it has a bar that this process moves."""
    return run.own(Bars, Bars).shares.get(stage)


@contextmanager
def following(run: Run, bar: UUID | None, share: Callable[[], float]) -> Iterator[None]:
    """Moves a progress bar to ``share()`` (0 to 1) every few seconds while the body runs."""
    done, context = threading.Event(), contextvars.copy_context()

    def follow() -> None:
        while not done.wait(POLL):
            moved(run, bar, round(1000 * share()), 1000)

    follower = threading.Thread(target=context.run, args=(follow,), daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


@contextmanager
def telling(run: Run, bar: UUID | None) -> Iterator[Tell]:
    """Yields what a stage tells its share to (0 to 1, from any thread); the bar follows it every few seconds."""
    last = [0.0]

    def tell(share: float) -> None:
        last[0] = share

    with following(run, bar, lambda: last[0]):
        yield tell
    moved(run, bar, round(1000 * last[0]), 1000)


@_shown
def batches(run_id: str, lines: list[Batch]) -> None:
    """The table of batches."""
    rows = [
        {
            "stage": b.stage,
            "batch": b.number,
            "status": b.status,
            "attempts": b.attempts,
            "rows": b.rows,
            "seconds": round(b.seconds, 2),
            "error": b.error or "",
        }
        for b in lines
        if b.stage in ("snapshot", "load")
    ]
    create_table_artifact(rows[-2000:], key=_key(run_id, "batches"), description=f"batches of {run_id}")


@_shown
def rerun(run_id: str, failed: list[Batch], parameters: str) -> None:
    """The failed batches, with the exact parameters that run them again."""
    rows = [{"stage": b.stage, "batch": b.number, "error": b.error or "", "rerun with": parameters} for b in failed]
    lines = json.dumps(json.loads(parameters), indent=2, ensure_ascii=False)  # one long line would be cut off
    create_table_artifact(
        rows,
        key=_key(run_id, "rerun"),
        description=f"Run `rerun-failed` with these parameters:\n\n```json\n{lines}\n```",
    )


@_shown
def verification(run_id: str, text: str) -> None:
    """The verification table."""
    create_markdown_artifact(text, key=_key(run_id, "verification"), description=f"verification of {run_id}")


@_shown
def result(run_id: str, lines: list[str]) -> None:
    """What a flow did, a line each."""
    create_markdown_artifact(
        "\n".join(f"- {x}" for x in lines), key=_key(run_id, "result"), description=f"result of {run_id}"
    )


@_shown
def flow_run_name(flow_run: UUID, name: str) -> None:
    """What a flow run is called on Prefect's pages."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(flow_run, name)


@_shown
def active_space(active: ActiveSpace) -> None:
    """Mirrors which vectors of a live table are meant now to the variable vecferry_active_space_SCHEMA_TABLE."""
    value = {name: value for name, value in vars(active).items() if name != "table"}
    Variable.set(f"vecferry_active_space_{re.sub(r'[^a-z0-9]+', '_', active.table.lower())}", value, overwrite=True)


def _key(run_id: str, what: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{run_id}-{what}".lower()).strip("-")
