"""The database that a parameter or the environment names, or the embedded one."""

import os
import sys
from functools import cache

from tasks.base.errors import UsageError
from tasks.base.settings import DEFAULT_DATABASE, OTHER_DATABASE, home, secret
from tasks.stores.postgres import embedded


def database_url(name: str) -> str:
    """The connection string called ``name``. Where DATABASE_URL is unset, POSTGRES_URL is used and named on standard
    error; where that is unset too, it is the embedded PostgreSQL under the home."""
    if url := secret(name, "database"):
        return url
    if name != DEFAULT_DATABASE:
        raise UsageError(f"database: neither an environment variable nor a Prefect Secret block is called {name}")
    if url := secret(OTHER_DATABASE, "database"):
        _name_other()
        return url
    return embedded.url(home())


def names_a_database() -> bool:
    """Whether the environment names a database; else runs without ``database`` go to the embedded one."""
    return bool(os.environ.get(DEFAULT_DATABASE) or os.environ.get(OTHER_DATABASE))


@cache
def _name_other() -> None:
    """Once a process: the URL is asked for by every task."""
    print(f"vecferry: {DEFAULT_DATABASE} is not set; using {OTHER_DATABASE}", file=sys.stderr, flush=True)
