"""Settings by environment, and secrets by name.

Parameters carry the *name* of an environment variable or of a Prefect Secret block, never its value: Prefect stores
parameters in plain text.
"""

import os
import re
from typing import Any

from tasks.base.errors import UsageError

DEFAULT_DATABASE = "DATABASE_URL"
OTHER_DATABASE = "POSTGRES_URL"
"""What many hosts and guides call it; looked at where DATABASE_URL is unset."""
LEDGER_DATABASE = "VECFERRY_DATABASE_URL"
"""Of the ledger of runs whose targets lie in no PostgreSQL."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_URL_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@|\bpassword\s*=", re.IGNORECASE)


def home() -> str:
    """Where runs, vectors and reports are kept: a directory or an fsspec URL."""
    value = os.environ.get("VECFERRY_HOME", ".vecferry")
    return value if "://" in value else os.path.abspath(value)


def refuse_secrets(parameters: Any, where: str = "") -> None:
    """Raises UsageError when a parameter's value carries a password."""
    if isinstance(parameters, dict):
        for key, value in parameters.items():
            refuse_secrets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(parameters, list | tuple):
        for value in parameters:
            refuse_secrets(value, where)
    elif isinstance(parameters, str) and _URL_PASSWORD.search(parameters):
        raise UsageError(
            f"parameter {where} contains a password, and parameters are stored in plain text. "
            f"Put it in an environment variable or a Prefect Secret block and pass its name, e.g. -p {where}=DATABASE_URL"
        )


def secret(name: str, parameter: str) -> str | None:
    """The value behind ``name``: an environment variable, else a Prefect Secret block, else None."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"parameter {parameter} takes the name of an environment variable or Prefect Secret block, got {name!r}"
        )
    if value := os.environ.get(name):
        return value
    if os.environ.get("PREFECT_API_URL"):
        from prefect.blocks.system import Secret

        from tasks.base import prefect_api

        prefect_api.require()
        try:
            return str(Secret.load(name.lower().replace("_", "-")).get())  # type: ignore[union-attr]
        except ValueError:  # no such block
            return None
    return None
