"""Texts before a model: which of them no model takes, how long they are, and how an over-long one is cut."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from tasks.embedders.interface import RowError

OnTooLong = Literal["quarantine", "truncate", "mean"]
"""What becomes of a text with more tokens than the model takes."""

RUNGS = (4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0)
"""Bytes a token assumed when cutting, one after the other until it fits; the last always does where the limit is the model's.
Fixed steps rather than an exact cut, so that a text is cut alike with and without a vocabulary, in the first run and in the
next."""


def size(text: str) -> int:
    """UTF-8 bytes; a lone surrogate, which UTF-8 has no form for, counts three."""
    return len(text.encode("utf-8", "surrogatepass"))


def unfit(text: str) -> RowError | None:
    """Why no model has a vector for this text, whichever it is."""
    if not text:
        return RowError("empty", "the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return RowError("encoding", f"the text is not Unicode: {error.reason} at {error.start}")
    return None


def cut(text: str, size_limit: int) -> list[str]:
    """``text`` in pieces of at most ``size_limit`` UTF-8 bytes (and at least one character), after a space where there is
    one in the last quarter."""
    pieces, rest = [], text.encode()
    while len(rest) > size_limit:
        end = size_limit
        while end > 0 and rest[end] & 0xC0 == 0x80:  # never inside a character
            end -= 1
        if end == 0:
            end = next((i for i in range(1, len(rest)) if rest[i] & 0xC0 != 0x80), len(rest))
        space = rest.rfind(b" ", end - end // 4, end)
        end = space + 1 if space > 0 else end
        pieces.append(rest[:end].decode())
        rest = rest[end:]
    return [*pieces, rest.decode()] if rest else pieces


def cuts(
    text: str, max_tokens: int, rungs: Sequence[float] = RUNGS, below: float = math.inf
) -> Iterator[tuple[int, list[str]]]:
    """The ways to cut ``text``, from the fewest pieces to the most: the most bytes of a piece, less than ``below``, and the pieces.
    The first whose pieces have ``max_tokens`` at most is the one to take."""
    for rung in rungs:
        limit = int(rung * max_tokens)
        if 0 < limit < min(size(text), below):
            yield limit, cut(text, limit)


def mean(vectors: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """One unit vector, float32[d], for the pieces of a text: their mean, each weighing its length.

    float32[k, d] and k lengths; as in OpenAI's cookbook "Embedding texts that are longer than the model's context".
    """
    total = np.average(np.asarray(vectors, np.float64), axis=0, weights=lengths)
    norm = float(np.linalg.norm(total))
    return (total / norm if norm else np.asarray(vectors[0], np.float64)).astype(np.float32)


def shortened(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """The first components of vectors, float32[n, dimensions], of length 1: what a model trained for it gives when it is asked for
    fewer dimensions (Kusupati et al. 2022, "Matryoshka Representation Learning")."""
    cut = vectors[:, :dimensions]
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), np.float32)
