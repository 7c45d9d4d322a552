"""What the command line is given: ``-p`` arguments and a file of parameters become the form of a flow."""

import secrets
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from flows.forms.form import parse
from flows.forms.registry import FLOWS
from flows.forms.shared import Base, Migration
from tasks.base.errors import UsageError
from tasks.base.words import listed
from tasks.runs.names import generated_run_id


def form_of(flow: str) -> type[Migration]:
    """The form of a flow. Raises UsageError, which lists the flows, for an unknown name."""
    if flow not in FLOWS:
        near = get_close_matches(flow, FLOWS, n=1)
        hint = f": did you mean {near[0]}?" if near else "."
        raise UsageError(f"unknown flow {flow!r}{hint} The flows are {listed(list(FLOWS))}")
    return FLOWS[flow]


def parameters_of(flow: str, given: list[str] | None, file: Path | None, run_id: str | None = None) -> Migration:
    """The parameters of a flow: what is ``given``, over those of a YAML ``file``. Raises UsageError naming what is wrong."""
    form, values = form_of(flow), dict[str, Any]()
    if file is not None:
        try:
            values = yaml.safe_load(file.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"--params {file}: {error}") from error
        if not isinstance(values, dict):
            raise UsageError(f"--params {file} must hold one mapping of parameters")
    values = merged(values, pairs(given))
    return parse(form, values if run_id is None else {**values, "run_id": run_id})


def named(flow: str, parameters: Migration) -> Migration:
    """The parameters with a name for the run, a new one where none is given."""
    return parameters.model_copy(update={"run_id": parameters.run_id or new_run_id(flow)})


def new_run_id(flow: str) -> str:
    """A name that sorts by time and that nobody else takes."""
    return generated_run_id(flow, datetime.now(), secrets.token_hex(4))


def database_of(given: list[str] | None) -> str | None:
    """The name of the database of the ledger, where ``-p database=NAME`` gives one."""
    named = {key: value for key, value in pairs(given).items() if key == "database"}
    return parse(Base, named).database if named else None


def pairs(given: list[str] | None) -> dict[str, Any]:
    """``key=value`` arguments as nested parameters. Raises UsageError naming the argument."""
    values: dict[str, Any] = {}
    for argument in given or []:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise UsageError(f"-p {argument}: write key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(
                f"-p {argument}: the value is not valid YAML ({error.__class__.__name__}): quote it"
            ) from error
        for part in reversed(key.split(".")):
            value = {part: value}
        values = merged(values, value)
    return values


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, dictionaries merged key by key, ``above`` winning."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return both
