"""`python -m flows.deploy`: puts the deployments of deployments/prefect.yaml on the server that PREFECT_API_URL names.

What is missing is made: the work pool, the automation, deployments. A deployment that is there gets the entrypoint, form,
description and pull steps of this repository, and keeps what can be set in the UI: its parameters, its schedules and
whether they are active, tags, limits, pool. `prefect deploy` sets all of that back. It must be started from the repository
root.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.steps.core import run_steps
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.templating import apply_values

from flows.ui import POOL

DEPLOYMENTS = Path("deployments/prefect.yaml")
AUTOMATION = Path("deployments/automations/crash-zombie-runs.yaml")


@dataclass(frozen=True)
class Deployment:
    """One deployment as this repository means it."""

    flow: str
    entry: dict[str, Any]
    """As it stands in prefect.yaml."""
    code: dict[str, Any]
    """What belongs to the code, by the names of the API: renewed at every deploy."""

    @property
    def name(self) -> str:
        return f"{self.flow}/{self.entry['name']}"


class DeployFailed(Exception):
    """The server refused a deployment."""


def deploy(client: SyncPrefectClient) -> Iterator[str]:
    """Makes and renews all of it; yields a line for each thing that is done. Raises DeployFailed, naming the deployments,
    when the server refuses some: their parameters may not fit the form any more."""
    refused = []
    if _make_pool(client):
        yield f"made the work pool {POOL}"
    if _make_automation(client):
        yield f"made the automation {AUTOMATION.stem}"
    for deployment in read():
        try:
            yield f"{_put(client, deployment)} {deployment.name}"
        except PrefectHTTPStatusError as error:
            refused.append(f"{deployment.name}: {_detail(error)}")
    if refused:
        raise DeployFailed("; ".join(refused))


def read() -> Iterator[Deployment]:
    """The deployments of prefect.yaml."""
    data = yaml.safe_load(DEPLOYMENTS.read_text())
    outputs = run_coro_as_sync(run_steps(data["build"], print_function=_quiet))
    pull_steps = apply_values(data["pull"], outputs)
    for entry in data["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False)
        # A parameter that there is not is refused by the server: it would end a run's process before it has begun.
        form = {**flow.parameters.model_dump(exclude_unset=True), "additionalProperties": False}
        code = {
            "entrypoint": entry["entrypoint"],
            "description": entry["description"],
            "parameter_openapi_schema": form,
            "pull_steps": pull_steps,
        }
        yield Deployment(flow.name, entry, code)


def _put(client: SyncPrefectClient, deployment: Deployment) -> str:
    try:
        there = client.read_deployment_by_name(deployment.name)
    except ObjectNotFound:
        _create(client, deployment)
        return "made"
    if _code(there) == deployment.code:
        return "unchanged"  # an update, even of nothing, takes the scheduled runs away until the scheduler is back
    # Not by the client's model: that would be sent with the defaults of what is not named.
    client.request("PATCH", "/deployments/{id}", path_params={"id": there.id}, json=deployment.code)
    return "updated"


def _code(there: DeploymentResponse) -> dict[str, Any]:
    return {
        "entrypoint": there.entrypoint,
        "description": there.description,
        "parameter_openapi_schema": there.parameter_openapi_schema,
        "pull_steps": there.pull_steps,
    }


def _create(client: SyncPrefectClient, deployment: Deployment) -> None:
    entry, limit = deployment.entry, deployment.entry.get("concurrency_limit", {})
    strategy = limit.get("collision_strategy")
    client.create_deployment(
        flow_id=client.create_flow_from_name(deployment.flow),
        name=entry["name"],
        **deployment.code,
        parameters=entry.get("parameters", {}),
        schedules=[_schedule(s) for s in entry.get("schedules", [])],
        tags=entry.get("tags", []),
        work_pool_name=entry["work_pool"]["name"],
        concurrency_limit=limit.get("limit"),
        concurrency_options=ConcurrencyOptions(collision_strategy=strategy) if strategy else None,
        enforce_parameter_schema=True,
        paused=False,
    )


def _schedule(entry: dict[str, Any]) -> DeploymentScheduleCreate:
    """``cron``, ``interval`` or ``rrule`` with what goes with it is the schedule itself; the rest is about it."""
    about = {key: entry[key] for key in ("slug", "active", "parameters") if key in entry}
    return DeploymentScheduleCreate(schedule={k: v for k, v in entry.items() if k not in about}, **about)


def _make_pool(client: SyncPrefectClient) -> bool:
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    except ObjectAlreadyExists:
        return False
    return True


def _make_automation(client: SyncPrefectClient) -> bool:
    automation = yaml.safe_load(AUTOMATION.read_text())
    named = {"automations": {"name": {"any_": [automation["name"]]}}}
    if client.request("POST", "/automations/filter", json=named).json():
        return False
    client.request("POST", "/automations/", json=automation)
    return True


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        return str(error.response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.response.status_code}: {error.response.text[:500]}"


def _quiet(*what: Any) -> None:
    """The steps tell what they do."""


def main() -> None:
    """Deploys, and prints what was done. Exit status 1 when something was not."""
    if not DEPLOYMENTS.exists():
        sys.exit(f"there is no {DEPLOYMENTS} here: run this from the repository root")
    if not (address := PREFECT_API_URL.value()):
        sys.exit(
            "PREFECT_API_URL is not set: set it to the API of a Prefect server; that of `make ui` is "
            "http://127.0.0.1:4200/api"
        )
    try:
        with get_client(sync_client=True) as client:
            for line in deploy(client):
                print(line, flush=True)
    except DeployFailed as error:
        sys.exit(f"not deployed: {error}")
    except httpx.TransportError as error:
        sys.exit(f"no answer from {address}, where PREFECT_API_URL points: {type(error).__name__} {error}")


if __name__ == "__main__":
    main()
