"""What the shell completes: names of flows, runs and parameters. Quick, and silent where there is nothing to ask."""

import os
from pathlib import Path
from typing import Any

import psycopg
import typer

from flows.command import fields
from flows.command.demos import names
from flows.forms.registry import FLOWS
from tasks.base import settings
from tasks.embedders.registry import PROVIDERS
from tasks.embedders.timm import megadescriptor
from tasks.stores.postgres import embedded
from tasks.stores.postgres.named import LEDGERS

PATIENCE = 2
"""Seconds for the database to answer: a person waits."""
RUNS = 100


def flows(incomplete: str) -> list[str]:
    """The flows whose names begin like that."""
    return [name for name in FLOWS if name.startswith(incomplete)]


def demos(incomplete: str) -> list[str]:
    """The flows with a demo whose names begin like that."""
    return [name for name in names() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """The models whose names begin like that, as far as they can be listed, and the providers."""
    names = [f"timm/{name}" for name in megadescriptor.NAMES] + [f"{provider}/" for provider in PROVIDERS]
    return [name for name in names if name.startswith(incomplete)]


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """The runs whose names begin like that, of each ledger the latest first."""
    return [name for name in dict.fromkeys(_runs(_database(ctx.params.get("p")))) if name.startswith(incomplete)]


def parameters(ctx: typer.Context, incomplete: str) -> list[str]:
    """``key=`` of the parameters of the flow on the line whose names begin like that."""
    # While a line is being completed its arguments are not assigned yet.
    flow = next((word for word in (ctx.params.get("flow"), *ctx.args) if word in FLOWS), None)
    names = [p.name for p in fields.parameters(FLOWS[flow]) if "[]" not in p.name] if flow else []
    return [f"{name}=" for name in names if name.startswith(incomplete)]


def _runs(database: str | None) -> list[str]:
    """Of that database's ledger, or of both. Nobody is asked what a Secret block holds."""
    urls = dict.fromkeys(map(_url, [database] if database else LEDGERS))
    if urls.keys() == {None}:
        return _folders() if database is None or database in LEDGERS else []
    there = os.path.isdir(embedded.directory_of(settings.home()))
    return [name for url in urls for name in (_asked(url) if url else _folders() if there else [])]


def _url(database: str) -> str | None:
    other = os.environ.get(settings.OTHER_DATABASE) if database == settings.DEFAULT_DATABASE else None
    return os.environ.get(database) or other or None  # empty is unset


def _folders() -> list[str]:
    """Nobody wants a server to be started for a press of a key. A run has its folder from its first batch on."""
    home = settings.home()
    folders = [f for f in Path(home, "runs").glob("*") if f.is_dir()] if "://" not in home else []
    return [f.name for f in sorted(folders, key=os.path.getmtime, reverse=True)]


def _asked(url: str) -> list[str]:
    try:
        with psycopg.connect(url, connect_timeout=PATIENCE) as connection:
            connection.execute(f"SET statement_timeout = '{PATIENCE}s'")
            rows = connection.execute(
                "SELECT run_id FROM vecferry.run ORDER BY created_at DESC LIMIT %s", (RUNS,)
            ).fetchall()
        return [name for (name,) in rows]
    except psycopg.Error:  # a complaint would be written into the line that is being typed
        return []


def _database(given: Any) -> str | None:
    named = [text.removeprefix("database=") for text in given or [] if text.startswith("database=")]
    return named[-1] if named else None
