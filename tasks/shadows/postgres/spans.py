"""Where the parts of a statement begin and end in the body that it stands in."""

import re
from itertools import pairwise

from tasks.shadows.postgres.underivable import Underivable
from tasks.stores.postgres.syntax import Piece, tokens

AFTER_RESULTS = frozenset(
    [
        "from",
        "into",
        "where",
        "group",
        "having",
        "window",
        "order",
        "limit",
        "offset",
        "fetch",
        "for",
        "union",
        "intersect",
        "except",
    ]
)
"""What may follow the columns of a result."""


def text_of(piece: Piece) -> str:
    """The text with as much before it as stands before it in the body."""
    return " " * piece.start + piece.text


def end_of_name(piece: Piece, start: int, parts: int) -> int:
    pattern = r"\s*\.\s*".join([r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'] * parts)
    match = re.compile(pattern).match(text_of(piece), start)
    if match is None:
        raise Underivable("a comment stands within a name")
    return match.end()


def end_of_result(piece: Piece, start: int) -> int:
    """Where a column of a result ends that begins there."""
    depth, end = 0, start
    for word in tokens(text_of(piece)[start:]):
        depth += (word.text in ("(", "[")) - (word.text in (")", "]"))
        if depth < 0 or (depth == 0 and (word.text in (",", ";") or word.name in AFTER_RESULTS)):
            break
        end = start + word.end
    return end


def value_set(piece: Piece, start: int) -> tuple[int, int]:
    """Where the value begins and ends that an UPDATE sets a column to whose name ends there."""
    text, depth = text_of(piece), 0
    equals, *words = tokens(text[start:])
    end = start + equals.end
    for before, word in pairwise([equals, *words]):
        depth += (word.text in ("(", "[")) - (word.text in (")", "]"))
        name = "" if before.text.lower() == "distinct" else word.text.lower()
        if depth < 0 or (depth == 0 and name in (",", ";", "from", "where", "returning")):
            break
        end = start + word.end
    return start + words[0].start, end


def end_of_star(piece: Piece, start: int) -> int:
    return text_of(piece).index("*", start) + 1


def end_of_alias(piece: Piece, start: int, alias: str) -> int:
    """Where the alias ends that follows the name of a table."""
    for word in tokens(text_of(piece)[start:]):
        if word.name == alias:
            return start + word.end
    raise Underivable(f"the name {alias} is not where it should be")
