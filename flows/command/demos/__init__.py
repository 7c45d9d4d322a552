"""What `vecferry demo FLOW` plays: the module that is called like the migration."""

import importlib
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, cast

from flows.forms.registry import FLOWS
from tasks.base.errors import UsageError
from tasks.base.words import listed

FIRST = "chroma-to-pgvector"
"""What is played where none is named."""


class Demo(Protocol):
    """What a module of this folder offers that is called like a migration."""

    def play(self, directory: Path) -> None:
        """Plays it in an empty directory: the tables lie in the PostgreSQL that DATABASE_URL names. Raises what makes the
        command fail."""


class Anywhere(Demo, Protocol):
    """A demo that can be played in a database of the user's too, beside what is there."""

    def play_in(self, directory: Path, database: str) -> None:
        """The same with the tables in the database that ``database`` names, however often. Raises what makes the command fail."""


def names() -> list[str]:
    """The migrations that have a demo."""
    return [flow for flow in FLOWS if Path(__file__).with_name(f"{_module(flow)}.py").exists()]


def demo(flow: str) -> Demo:
    """The demo of a migration. Raises UsageError, which lists those there are, where it has none."""
    if flow not in names():
        near = get_close_matches(flow, names(), n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(f"{flow!r} has no demo. {hint}The migrations that have one are {listed(names())}")
    return cast(Demo, importlib.import_module(f"{__name__}.{_module(flow)}"))


def anywhere(flow: str) -> Anywhere:
    """The demo of a migration that can be played in any database. Raises UsageError where it cannot."""
    if not hasattr(demo(flow), "play_in"):
        raise UsageError(f"the demo of {flow} is played in a PostgreSQL of its own: leave out --database")
    return cast(Anywhere, demo(flow))


def _module(flow: str) -> str:
    return flow.replace("-", "_")
