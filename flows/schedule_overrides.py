"""What a schedule gives its runs over the deployment's parameters.

The V2 interface of Prefect 3.8 saves every field of a schedule's dialog, those that nobody filled in too: as null, or as a JSON
field without a text. The scheduler lays them over the deployment's parameters as they are, so that changing the time of a
schedule would take its source away. A parameter that a schedule leaves empty says nothing here: the deployment's value stands.
"""

import json
from typing import Any

from tasks.base.errors import UsageError

KIND = "__prefect_kind"
"""Marks the value of a field that holds a text of JSON."""


def effective(given: dict[str, Any]) -> dict[str, Any]:
    """What the current flow run is given; ``given`` itself, but where a schedule made the flow run. Raises UsageError, naming
    the parameter, for a text that is not JSON."""
    from prefect.client.orchestration import get_client  # forms are read without Prefect too
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or (run := context.flow_run) is None or not run.auto_scheduled or run.deployment_id is None:
        return given
    if not any(is_empty(value) or _has_text(value) for value in given.values()):
        return given
    named = {name: value for name, value in given.items() if name in run.parameters}
    defaults = {name: value for name, value in given.items() if name not in named}
    with get_client(sync_client=True) as client:
        return defaults | overlaid(client.read_deployment(run.deployment_id).parameters, named)


def overlaid(deployed: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``given``, with what is deployed in the place of what is empty; left out where that has nothing either."""
    return {
        name: deployed[name] if is_empty(value) else _parsed(value, name)
        for name, value in given.items()
        if not is_empty(value) or name in deployed
    }


def is_empty(value: Any) -> bool:
    """Whether nobody filled in the field, or any field of those that are nested in it."""
    if isinstance(value, dict) and KIND in value:
        return not str(value.get("value") or "").strip()
    return value is None or (isinstance(value, dict) and bool(value) and all(map(is_empty, value.values())))


def _has_text(value: Any) -> bool:
    return isinstance(value, dict) and (KIND in value or any(map(_has_text, value.values())))


def _parsed(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return value
    if value.get(KIND) != "json":
        return {key: _parsed(inner, f"{name}.{key}") for key, inner in value.items() if not _is_blank_text(inner)}
    try:
        return json.loads(value["value"])
    except ValueError as error:
        raise UsageError(f"parameter {name} is not JSON: {error}") from error


def _is_blank_text(value: Any) -> bool:
    return isinstance(value, dict) and KIND in value and is_empty(value)
