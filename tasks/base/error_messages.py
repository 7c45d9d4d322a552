"""What of an error may be written down where people look who may not see the rows.

A database, a store or a provider puts what it was sent into its messages: PostgreSQL the value it cannot read or the row
that violates a constraint, a trigger whatever it likes, a provider the text it refuses. So of a foreign error only what
cannot hold such a thing is kept: its class, SQLSTATE or HTTP status, the names of the table and the constraint, the place in
our code. Our own messages name things of the plan; what they quote is cut.
"""

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tasks.base.errors import BatchesFailed, Stopped, VecferryError
from tasks.base.words import plural

LONGEST = 300
SAYS_NO_VALUES = ("08", "25", "28", "3D", "40", "42", "53", "54", "55", "57", "58")
"""Classes of SQLSTATE whose messages are about the server, its objects and its limits, not about what is in a row."""

_ROOT = Path(__file__).parents[2]
_QUOTED = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|“[^”]*”|«[^»]*»)")
_BETWEEN_QUOTES = re.compile(r"['\"“«].*['\"”»]")
"""From the first to the last: whoever wrote the message may not escape what it quotes."""
_ANSWER = re.compile(r"(: [1-5]\d\d(?: [a-z]+(?:_[a-z]+)+)?)\b.*")
"""What a server said stands after its status, and its code where it has one."""
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)|\b(?:sk|pk)-[\w*-]+")


def safe(error: BaseException) -> str | None:
    """The message of an error without a text of a row and without a secret; None where nothing is left of it."""
    if isinstance(error, BatchesFailed):
        return f"{plural(len(error.batches), 'batch')} {', '.join(map(str, error.batches))} failed"
    if isinstance(error, Stopped):
        return "the run was asked to stop"
    if not isinstance(error, VecferryError):
        return _foreign(error)
    own = _own(str(error))
    below = next((e for e in _chain(error) if not isinstance(e, VecferryError)), None)
    if below is None:
        return own
    # What follows the first colon is what the other one said.
    return ": ".join(part for part in (own.partition(": ")[0], type(below).__name__, _foreign(below)) if part)


def _own(text: str) -> str:
    first = text.strip().splitlines()[0] if text.strip() else ""
    return _PASSWORD.sub("…", _QUOTED.sub("'…'", _ANSWER.sub(r"\1", first)))[:LONGEST]


def _foreign(error: BaseException) -> str | None:
    if isinstance(error, psycopg.Error):
        return _of_postgresql(error)
    if isinstance(error, OSError):
        return error.strerror
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if isinstance(status, int) else _place(error)


def _of_postgresql(error: psycopg.Error) -> str | None:
    diag = error.diag
    if diag.sqlstate is None:  # the connection: no row has been sent
        return (
            _own(_BETWEEN_QUOTES.sub("'…'", str(error)))
            if isinstance(error, psycopg.OperationalError)
            else _place(error)
        )
    names = (
        ("table", ".".join(name for name in (diag.schema_name, diag.table_name) if name)),
        ("column", diag.column_name),
        ("constraint", diag.constraint_name),
    )
    words = [f"SQLSTATE {diag.sqlstate}", *(f"{what} {name}" for what, name in names if name)]
    if diag.sqlstate[:2] in SAYS_NO_VALUES and diag.message_primary:
        words.append(_own(_BETWEEN_QUOTES.sub("'…'", diag.message_primary)))
    return ", ".join(words)


def _place(error: BaseException) -> str | None:
    """The last line of our own code that the error came through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in ("tasks", "flows"):
            return f"at {path.relative_to(_ROOT)}:{frame.lineno}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    below: BaseException | None = error
    while below is not None:
        yield below
        below = below.__cause__ or (None if below.__suppress_context__ else below.__context__)
