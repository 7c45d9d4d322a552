"""The terminal: results to standard output, complaints to standard error."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.checks.report import plain

# Markup is off for good: names, ids and messages are other people's, and may hold square brackets. Text carries styles.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


WIDEST = 400
"""Letters of a line in a table that is not folded to the terminal's width."""


def bold(text: str) -> Text:
    return Text(text, "bold")


def red(text: str) -> Text:
    return Text(text, "red")


def yellow(text: str) -> Text:
    return Text(text, "yellow")


def print_whole(table: Table) -> None:
    """Prints a table whose lines are as long as they have to be: a name that is cut in two can be copied by nobody."""
    Console(file=out.file, width=WIDEST, highlight=False, markup=False, emoji=False).print(table)


passing: set[str] = set()
"""What stands on the terminal's last line for a while, and is wiped when it has passed."""


@contextmanager
def passing_by(line: str) -> Iterator[None]:
    """On a terminal, a line that says what goes on while the body runs."""
    if not err.is_terminal:
        yield
        return
    with err.status(line):
        passing.add(line)
        yield
    passing.clear()


def complain(problem: object) -> None:
    err.print(Text.assemble(red("vecferry:"), f" {problem}"))


def note(line: str) -> None:
    """Prints a line that is not a complaint to standard error."""
    err.print(f"vecferry: {line}")


def explain(error: BaseException) -> int:
    """One line for an error nobody classed; the traceback where VECFERRY_DEBUG asks for it. Returns the exit status."""
    if usage := getattr(error, "format_message", None):  # Click's own complaints about arguments
        complain(usage())
        return 2
    if os.environ.get("VECFERRY_DEBUG"):
        err.print_exception()
    complain(f"{type(error).__name__}: {error} (VECFERRY_DEBUG=1 shows where; `vecferry status` says how to go on)")
    return 1


def print_json(value: Any) -> None:
    """One JSON value, and nothing else."""
    print(json.dumps(value, default=plain))
