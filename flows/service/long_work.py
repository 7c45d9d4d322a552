"""Work that takes longer than a client waits: a run of the flow multi-model, on the Prefect server."""

import json
from collections.abc import Mapping
from typing import Any

import httpx

from flows.service.problems import Refused
from tasks.base.errors import TransientError
from tasks.base.words import typed

DEPLOYMENT = "multi-model/manual"
LONGEST = 1000
"""Letters of a command that a message shows; one that lists many documents has more."""


def start(parameters: dict[str, Any]) -> dict[str, Any]:
    """Starts a run and returns its id, name and address at once. Raises Refused, 409, where there is no server or no deployment,
    and TransientError where the server does not answer."""
    # Only here: Prefect takes seconds to import, and most services start no run.
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL
    from prefect.utilities.urls import url_for

    if not PREFECT_API_URL.value():
        command = _command(parameters)
        by_hand = f", or run `{command}`" if len(command) <= LONGEST else ""
        raise Refused(
            409,
            "this takes a flow run, and PREFECT_API_URL names no Prefect server: start the service with one, e.g. that of "
            f"`make ui`{by_hand}",
        )
    try:
        run: Any = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False)
    except ObjectNotFound as error:
        raise Refused(
            409, f"the Prefect server has no deployment {DEPLOYMENT}: make it with `python -m flows.deploy`"
        ) from error
    except PrefectHTTPStatusError as error:
        raise TransientError(f"the Prefect server refused the run: {error.response.status_code}") from error
    except httpx.TransportError as error:
        raise TransientError(f"the Prefect server does not answer: {type(error).__name__}") from error
    return {"id": str(run.id), "name": run.name, "url": url_for("flow-run", run.id)}


def _command(parameters: Mapping[str, Any]) -> str:
    """The same run, as it is typed."""
    written = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in parameters.items())
    return " ".join(["vecferry run multi-model", *(f"-p {typed(one)}" for one in written)])
