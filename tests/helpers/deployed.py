"""A Prefect server with the deployments and a worker, started as `make ui` starts them, and how the tests speak with it."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from flows import ui
from tests.helpers import prefect_database
from tests.helpers.servers import free_port

ROOT = Path(__file__).parents[2]
UNDER_WAY = ("PENDING", "RUNNING", "CANCELLING")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE = 250.0
"""Seconds until something that is waited for is taken for stuck, on a slow machine beside other work."""
AN_HOUR = 3600.0
"""Of a schedule that is to fire once."""
FIRST, ONLY = timedelta(seconds=4), timedelta(seconds=12)
"""How long after a schedule is switched on it is due first. Prefect looks every 5 s for schedules that were edited, and passes
over what was due before it looked: one that fires again is caught the next time, one that fires once has to be due later."""
CHROMA, TEXT = "chroma-to-pgvector/scheduled", "text-384-to-1536/scheduled"
IMAGES, POINTS = "clip-to-megadescriptor/scheduled", "siglip-to-clip/scheduled"
MODELS = "multi-model/scheduled"


class Api(httpx.Client):
    """Prefect's REST API, so that nothing of this process's own Prefect settings is in the way."""

    shipped: dict[str, Any]
    """The deployments as they were when the server came up, by name; filled by ``deployed``."""

    def ask(self, method: str, path: str, **content: Any) -> Any:
        until = time.monotonic() + PATIENCE
        # A busy server says 503, and Prefect's own client asks again too.
        while (answer := self.request(method, path, json=content or None)).status_code == 503:
            assert time.monotonic() < until, f"{method} {path}: 503 for {PATIENCE:.0f} s"
            time.sleep(0.5)
        return answer.raise_for_status().json() if answer.content else None

    def deployment(self, name: str) -> Any:
        return self.ask("GET", f"deployments/name/{name}")

    def start(self, name: str, **content: Any) -> str:
        return str(self.ask("POST", f"deployments/{self.deployment(name)['id']}/create_flow_run", **content)["id"])

    def ended(self, run: str, states: tuple[str, ...] = ENDED) -> Any:
        until = time.monotonic() + PATIENCE
        while (result := self.ask("GET", f"flow_runs/{run}"))["state_type"] not in states:
            assert time.monotonic() < until, f"{result['name']} is still {result['state_name']} after {PATIENCE:.0f} s"
            time.sleep(0.3)
        return result

    def artifact(self, key: str) -> Any:
        """The latest artifact of that key."""
        result = self.ask("POST", "artifacts/filter", artifacts={"key": {"any_": [key]}}, sort="CREATED_DESC")
        assert result, f"there is no artifact {key}"
        return result[0]

    def runs(self, name: str, states: tuple[str, ...] = ENDED) -> list[Any]:
        """The runs of a deployment that are over, in the order of their schedule."""
        where = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}}
        over = {"state": {"type": {"any_": list(states)}}}
        return list(self.ask("POST", "flow_runs/filter", **where, flow_runs=over, sort="EXPECTED_START_TIME_ASC"))

    @contextmanager
    def every(
        self, seconds: float, name: str, overrides: dict[str, Any] | None = None, **parameters: Any
    ) -> Iterator[datetime]:
        """A deployment's own schedule, edited and switched on as a person does it in the UI; off again afterwards.
        ``overrides`` are the schedule's own."""
        self.as_shipped(name)
        begun = datetime.now(UTC)
        shipped = self.shipped[name]
        due = begun + (ONLY if seconds == AN_HOUR else FIRST)
        interval = {"interval": seconds, "anchor_date": due.isoformat()}
        edited = {"slug": shipped["schedules"][0]["slug"], "schedule": interval, "active": True}
        given = {"parameters": overrides} if overrides else {}
        self.edit(name, parameters={**shipped["parameters"], **parameters}, schedules=[{**edited, **given}])
        try:
            yield begun
        finally:
            self.as_shipped(name)

    def as_shipped(self, name: str) -> None:
        """Takes back what a test changed of a deployment, and returns when none of its runs is under way: the next test
        would take it for its own."""
        shipped = self.shipped[name]
        (schedule,) = shipped["schedules"]
        kept = {key: schedule[key] for key in ("slug", "schedule", "active", "parameters")}
        self.edit(name, parameters=shipped["parameters"], schedules=[kept])
        until = time.monotonic() + PATIENCE
        while under_way := self.runs(name, UNDER_WAY):
            assert time.monotonic() < until, under_way[0]["state"]
            time.sleep(0.2)

    def edit(self, name: str, **content: Any) -> None:
        self.ask("PATCH", f"deployments/{self.deployment(name)['id']}", **content)

    def fired(self, name: str, after: datetime, states: tuple[str, ...] = ENDED) -> Any:
        """The first run of a deployment that began after ``after`` and is over, or in one of ``states``, those aside that
        were cancelled."""
        until = time.monotonic() + PATIENCE
        while True:
            for run in self.runs(name, states):
                begun = run["start_time"] and datetime.fromisoformat(run["start_time"])
                if run["state_type"] != "CANCELLED" and begun and begun > after:
                    return run
            assert time.monotonic() < until, f"{name} has fired nothing that counts after {PATIENCE:.0f} s"
            time.sleep(0.2)

    def task_names(self, run: str) -> list[str]:
        return list(self.task_states(run))

    def task_states(self, run: str) -> dict[str, str]:
        result = self.ask("POST", "task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return {t["name"]: t["state_type"] for t in result}


@contextmanager
def deployed(postgres: Callable[[str], str], home: Path) -> Iterator[Api]:
    """A server with the deployments of prefect.yaml and a worker, whose DATABASE_URL is an empty database; NIGHTLY_URL is
    another, for what schedules bring."""
    name, port = f"t_{uuid.uuid4().hex[:12]}", free_port()
    with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
        for database in (name, f"{name}_nightly"):
            connection.execute(f"CREATE DATABASE {database} TEMPLATE with_vector")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("DATABASE_URL", postgres(name))
        patch.setenv("NIGHTLY_URL", postgres(f"{name}_nightly"))
        patch.setenv("VECFERRY_DATABASE_URL", postgres(name))
        patch.setenv("VECFERRY_HOME", str(home))
        patch.setenv("VECFERRY_RETRY_SECONDS", "0.05")
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        patch.delenv("PREFECT_HOME", raising=False)
        prefect_database.copy(ui.prefect_home() / "prefect.db")
        # SQLite waits up to 60 s for its lock before the server says 503.
        with ui.serving(port), Api(base_url=f"http://127.0.0.1:{port}/api/", timeout=90) as api:
            api.shipped = {
                name: api.deployment(name) for name in (CHROMA, TEXT, IMAGES, POINTS, MODELS, "catch-up/catch-up")
            }
            yield api
