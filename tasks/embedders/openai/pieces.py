"""Texts, and parts of over-long ones, on their way to a server: in one request, and in several where that was refused."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.embedders.openai.answers import Verdict
from tasks.embedders.openai.asking import Refused

_NAMED_INPUT = re.compile(r"input\[(\d+)\]")


@dataclass(frozen=True)
class Piece:
    """A text, or a part of an over-long one."""

    row: int
    text: str
    bytes: int
    tokens: int | None
    """Exact, or None where it could not be counted."""
    step: float = math.inf
    """The most bytes of a part of its text."""
    part: int = 0


@dataclass
class Refusal:
    """A request that was refused whole, and what became of its parts: when none is at fault, it was too many."""

    verdict: Verdict
    open: int = 1
    faulty: bool = False
    largest: int = 0


@dataclass(frozen=True)
class Pack:
    """The pieces of one request."""

    pieces: Sequence[Piece]
    refusal: Refusal | None = None
    suspect_since: float | None = None
    """Of pieces that were refused with others, though the server was well: that it was may be seen from then on."""
    made: float | None = None
    """When that was."""


def tokens_of(piece: Piece, density: float) -> float:
    return piece.bytes * density if piece.tokens is None else piece.tokens


def stated_most(words: str, sent: int) -> int | None:
    """How many texts a request may have, by a refusal of so many."""
    return max((int(n) for n in re.findall(r"\d+", words) if 0 < int(n) < sent), default=None)


def parts_of(pieces: Sequence[Piece], refused: Refused, works: int) -> list[Sequence[Piece]]:
    """The requests to send for one that was refused; ``works`` texts at a time are thought to be answered."""
    named = _NAMED_INPUT.search(refused.param) or _NAMED_INPUT.search(refused.words)
    if refused.verdict in ("row", "too_long") and named and int(named[1]) < len(pieces):
        at = int(named[1])
        return [[pieces[at]], [*pieces[:at], *pieces[at + 1 :]]]
    if refused.late or (refused.verdict == "too_many" and works < len(pieces)):
        step = min(works, -(-len(pieces) // 2)) if refused.late else works
        return [pieces[i : i + step] for i in range(0, len(pieces), step)]
    return _longest_apart(pieces) if refused.verdict == "too_long" else halves(pieces)


def halves(pieces: Sequence[Piece]) -> list[Sequence[Piece]]:
    return [pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]]


def _longest_apart(pieces: Sequence[Piece]) -> list[Sequence[Piece]]:
    """Those that are nearly as long as the longest, and the others; halves where all are."""
    longest = max(piece.bytes for piece in pieces)
    long = [piece for piece in pieces if 2 * piece.bytes > longest]
    short = [piece for piece in pieces if 2 * piece.bytes <= longest]
    return [long, short] if short else halves(pieces)
