"""The databases that a parameter or the environment names, or the embedded one; and those of them that ledgers lie in."""

import os
import sys
from functools import cache

import httpx
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ProgrammingError

from tasks.base.errors import UsageError
from tasks.base.settings import DEFAULT_DATABASE, LEDGER_DATABASE, OTHER_DATABASE, home, secret
from tasks.stores.postgres import embedded

LEDGERS = (DEFAULT_DATABASE, LEDGER_DATABASE)
"""The names of databases that ledgers lie in where nobody says otherwise. Unset, each is the embedded PostgreSQL."""


def database_url(name: str) -> str:
    """The connection string called ``name``. Where DATABASE_URL is unset, POSTGRES_URL is used and named on standard
    error; where that is unset too, it is the embedded PostgreSQL under the home, as for VECFERRY_DATABASE_URL."""
    if url := secret(name, "database"):
        return url
    if name not in LEDGERS:
        raise UsageError(f"database: neither an environment variable nor a Prefect Secret block is called {name}")
    if name == DEFAULT_DATABASE and (url := secret(OTHER_DATABASE, "database")):
        _name_other()
        return url
    return embedded.url(home())


def names_a_database() -> bool:
    """Whether the environment names a database; else runs without ``database`` go to the embedded one."""
    return bool(os.environ.get(DEFAULT_DATABASE) or os.environ.get(OTHER_DATABASE))


def ledger_databases() -> list[str]:
    """The names of the databases that may hold a ledger: DATABASE_URL, and VECFERRY_DATABASE_URL where that leads elsewhere.
    The embedded one is among two only where it has been made. Nothing is connected to, or started."""
    urls = {name: _settled(name) for name in LEDGERS}
    if len({_place(url) for url in urls.values()}) == 1:
        return [DEFAULT_DATABASE]
    return [name for name, url in urls.items() if url or os.path.isdir(embedded.directory_of(home()))]


def is_meant(name: str) -> bool:
    """Whether a command that names no database means that one, whatever runs there are."""
    try:
        if name == DEFAULT_DATABASE:
            return ledger_databases() == [DEFAULT_DATABASE]
        return name == LEDGER_DATABASE and _place(_settled(name)) == _place(_settled(DEFAULT_DATABASE))
    except (UsageError, httpx.HTTPError):  # a message is not lost because Prefect has gone: it names the database
        return False


def _settled(name: str) -> str | None:
    """The URL that is set under one of LEDGERS; None of the embedded database. Raises UsageError where Prefect does not answer."""
    if name == LEDGER_DATABASE:
        return _url(LEDGER_DATABASE)
    return _url(DEFAULT_DATABASE) or _url(OTHER_DATABASE)


def _url(name: str) -> str | None:
    """A Secret block is asked for only where DATABASE_URL would be one too: who only reads has no need of Prefect."""
    if url := os.environ.get(name):
        return url
    api = os.environ.get("PREFECT_API_URL")
    return _block(name, api) if api and not names_a_database() else None


@cache
def _block(name: str, api: str) -> str | None:
    """Once a process: every message that names a command asks."""
    return secret(name, "database")


def _place(url: str | None) -> tuple[str | None, ...]:
    """What tells two databases apart, as far as their URLs do: host, port and name."""
    if url is None:
        return ()
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:  # whoever connects says what is wrong with it
        return (url,)
    return tuple(str(parts.get(part) or usual) for part, usual in (("host", ""), ("port", 5432), ("dbname", "")))


@cache
def _name_other() -> None:
    """Once a process: the URL is asked for by every task."""
    print(f"vecferry: {DEFAULT_DATABASE} is not set; using {OTHER_DATABASE}", file=sys.stderr, flush=True)
