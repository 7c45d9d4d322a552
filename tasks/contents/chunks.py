"""A document's text in chunks: what a search returns, and what a model is given.

A chunk takes as many paragraphs as fit. None is parted that fits by itself; one that does not is, at the next weaker boundary: line,
sentence, word. Chunks do not overlap, and put together they are the document but for the blanks between them. The bound is
one of size, not of one model's tokens, because all models of a table share its chunks.
"""

import re
from collections.abc import Iterator, Sequence

from tasks.embedders.texts import cut, size

CHUNK_BYTES = 1_000
"""Of UTF-8: about 250 tokens of English prose, which a model that reads 256, such as all-MiniLM-L6-v2, just takes whole."""
SMALLEST = 32
"""Bytes below which a text that a model finds too long is parted no more: its length is not what the model has against it."""
BOUNDARIES = tuple(
    map(re.compile, (r"\n[ \t]*\n\s*", r"\n", r"(?<=[.!?…])\s+|(?<=[.!?…][\"')\]])\s+|(?<=[。！？])", r"\s+"))
)
"""From strong to weak: a blank line, a line, a sentence, a word."""


def chunks(text: str, most: int = CHUNK_BYTES) -> list[str]:
    """The text in pieces of at most ``most`` bytes of UTF-8, none of them blank; a single character may be larger."""
    pieces, start, end = list[str](), 0, 0
    for unit in _units(text, slice(0, len(text)), most, BOUNDARIES):
        if end > start and size(text[start : unit.stop]) > most:
            pieces.append(text[start:end])
            start = unit.start
        elif end == start:
            start = unit.start
        end = unit.stop
    return [piece.strip() for piece in [*pieces, text[start:end]] if piece.strip()]


def halves(text: str) -> list[str]:
    """A chunk that a model finds too long, in pieces of half its size at most; itself where it is too short to be parted."""
    return chunks(text, max(SMALLEST, size(text) // 2)) if size(text) > SMALLEST else [text]


def _units(text: str, part: slice, most: int, boundaries: Sequence[re.Pattern[str]]) -> Iterator[slice]:
    """What is not parted: the largest spans between boundaries that fit."""
    if size(text[part]) <= most:
        yield part
    elif not boundaries:
        at = part.start
        for piece in cut(text[part], most):
            yield slice(at, at := at + len(piece))
    else:
        at = part.start
        for match in [*boundaries[0].finditer(text, part.start, part.stop), None]:
            until = match.start() if match else part.stop
            if until > at:
                yield from _units(text, slice(at, until), most, boundaries[1:])
            at = match.end() if match else until
