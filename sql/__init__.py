"""Loads the .sql files of this folder and binds their psql variables.

A file is plain SQL that psql can run by hand. Variables are psql's own: ``:"name"`` is an identifier, ``:'name'`` a
literal, ``:name`` a bare number or SQL of ours. They are never expanded inside quoted strings, ``$$`` bodies or comments, which is
psql's rule too.
"""

import re
from functools import cache
from pathlib import Path

from psycopg import sql

Value = str | int | float | sql.Composable

TOKEN = re.compile(
    r"""
      (?P<skip> --[^\n]* | /\*.*?\*/ | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | :: )
    | :"(?P<identifier>\w+)" | :'(?P<literal>\w+)' | :(?P<number>\w+)
    """,
    re.VERBOSE | re.DOTALL,
)


def statement(name: str, /, **variables: Value) -> sql.Composed:
    """The file ``name``.sql with its variables bound.

    Raises KeyError for a variable without a value and TypeError for a bare variable that is not a number.
    """
    parts: list[sql.Composable] = []
    text, end = _text(name), 0
    for match in TOKEN.finditer(text):
        if match["skip"]:
            continue
        parts.append(sql.SQL(text[end : match.start()]))
        parts.append(_bind(match, variables))
        end = match.end()
    parts.append(sql.SQL(text[end:]))
    return sql.Composed(parts)


def names(prefix: str) -> list[str]:
    """The files whose names begin with ``prefix``, in order, as ``statement`` takes them."""
    return sorted(path.stem for path in Path(__file__).parent.glob(f"{prefix}*.sql"))


def _bind(match: re.Match[str], variables: dict[str, Value]) -> sql.Composable:
    if match["identifier"]:
        return sql.Identifier(str(variables[match["identifier"]]))
    if match["literal"]:
        return sql.Literal(variables[match["literal"]])
    value = variables[match["number"]]
    if isinstance(value, sql.Composable):
        return value
    if not isinstance(value, int | float):
        raise TypeError(f":{match['number']} is a bare number, got {value!r}")
    return sql.SQL(str(value))


@cache
def _text(name: str) -> str:
    lines = (Path(__file__).parent / f"{name}.sql").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("--"))
