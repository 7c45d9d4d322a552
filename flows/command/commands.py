"""From parameters back to the command that a person types."""

import json
import shlex
from typing import Any

import yaml
from pydantic import BaseModel

from flows.command import fields
from flows.forms.form import changed
from flows.forms.shared import OF_A_START, Migration

NAMED_OTHERWISE = {"run_id", "batch_ids"}
"""What a command takes by an argument or option of its own."""


def run_command(flow: str, parameters: Migration) -> str:
    """The command that starts a run with these parameters, quoted for a shell."""
    name = [] if parameters.run_id is None else ["--run-id", parameters.run_id]
    given = changed(parameters) - {"run_id"}
    return shlex.join(["vecferry", "run", flow, *_options(parameters, given), *name])


def not_frozen(parameters: Migration) -> list[str]:
    """The options that a resumption has to repeat: what was set and is not in the run's plan."""
    return _options(parameters, changed(parameters) & (OF_A_START - NAMED_OTHERWISE))


def _options(model: BaseModel, names: set[str]) -> list[str]:
    """``-p key=value`` for each field of those names, in the order of the form."""
    return [
        option
        for name in fields.in_order(type(model))
        if name in names
        for key, value in _pairs(type(model).model_fields[name].alias or name, getattr(model, name))
        for option in ("-p", f"{key}={_text(value)}")
    ]


def _pairs(key: str, value: Any) -> list[tuple[str, Any]]:
    """Dotted keys and their values: of a nested model those that differ from its defaults."""
    if isinstance(value, BaseModel):
        given = [n for n in fields.in_order(type(value)) if n in changed(value)]
        return [pair for name in given for pair in _pairs(f"{key}.{name}", getattr(value, name))]
    if isinstance(value, dict) and value and not any("." in name or "=" in name for name in value):
        return [(f"{key}.{name}", of_name) for name, of_name in value.items()]
    return [(key, value)]


def _text(value: Any) -> str:
    """The value as ``-p`` reads it: YAML on one line."""
    if isinstance(value, str):
        return value if _reads_as(value) == value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, default=lambda model: model.model_dump(exclude_defaults=True))


def _reads_as(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
