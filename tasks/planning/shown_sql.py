"""SQL as a plan shows it: what will be sent, statement by statement, so that it can be run by hand."""

import re
from collections.abc import Iterable, Iterator
from itertools import count

from psycopg import sql

from sql import TOKEN

_SPACE, _PARAMETER = re.compile(r"\s+"), re.compile(r"%[bst]")
_COMMENT = ("--", "/*")


def lines(*statements: sql.Composed) -> Iterator[str]:
    """The single statements, each without the semicolon that ends it and on one line, save for what lies in literals, quoted
    names and $$ bodies: those are left as they are. Parameters are $1 and so on."""
    for text in statements:
        yield from _split(text.as_string())


def _split(text: str) -> Iterator[str]:
    one, end, numbers = "", 0, count(1)
    for token in [*TOKEN.finditer(text), None]:
        between = _SPACE.sub(" ", text[end : token.start() if token else len(text)])
        for at, part in enumerate(between.split(";")):
            if at:
                if one.strip():
                    yield one.strip()
                one, numbers = "", count(1)
            first, *rest = _PARAMETER.split(part)
            one += first + "".join(f"${next(numbers)}{piece}" for piece in rest)
        if token:
            one += " " if token[0].startswith(_COMMENT) else token[0]
            end = token.end()
    if one.strip():
        yield one.strip()


def group(name: str, when: str, shown: Iterable[str]) -> Iterator[str]:
    """Lines under one that says when they are sent; nothing where there are none."""
    for at, line in enumerate(shown):
        if not at:
            yield note(f"{name}, {when}:")
        yield line


def note(text: str) -> str:
    """A line that is no statement, whatever the names in it hold."""
    return f"-- {_SPACE.sub(' ', text)}"
