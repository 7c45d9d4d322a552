"""Deterministic local vectors from hashed words: no model, no meaning beyond shared words, and no download.

Feature hashing (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"): each word and each pair
of neighbours adds ±1/√count to one of d components chosen by a hash; the sum is normalized.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import ClassVar

import numpy as np

from tasks.base.errors import FatalError, UsageError
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, Rates, Space
from tasks.embedders.naming import ModelName

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class HashingEmbedder:
    """``hashing/DIMENSIONS``."""

    dimensions: int
    takes: ClassVar[frozenset[Kind]] = frozenset({"text"})
    account: ClassVar[None] = None
    licence: ClassVar[str] = ""

    @cached_property
    def space(self) -> Space:
        return Space("hashing", str(self.dimensions), self.dimensions, revision="1")

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        vectors = np.zeros((len(items), self.dimensions), np.float32)
        for row, item in zip(vectors, items, strict=True):
            if not isinstance(item, str):
                raise FatalError(f"hashing/{self.dimensions} takes text, not images")
            self._hash(item, row)
        if on_made and len(items):
            on_made(range(len(items)), vectors)
        return Embedded(vectors)

    def _hash(self, text: str, row: np.ndarray) -> None:
        words = [w.lower() for w in _WORD.findall(text)] or [text or "\0"]
        counts = Counter(words + [f"{a} {b}" for a, b in pairwise(words)])
        for term, count in counts.items():
            bucket, sign = _slot(term)
            row[bucket % self.dimensions] += sign * count**0.5
        norm = float(np.linalg.norm(row))
        row /= norm or 1.0
        if not norm:
            row[0] = 1.0  # words that cancel out exactly must not make a zero vector, which no index finds


def open_hashing(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> HashingEmbedder:
    """The embedder that ``name`` describes. Raises UsageError where it is not a number of dimensions."""
    name.allow(())
    if name.revision or not name.model.isdecimal() or not 0 < int(name.model) <= 16_000:
        raise UsageError(f"embedder {name}: give hashing its dimensions, 1 to 16000, e.g. hashing/384")
    return HashingEmbedder(int(name.model))


@lru_cache(maxsize=100_000)
def _slot(term: str) -> tuple[int, float]:
    value = int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "big")
    return value >> 1, 1.0 if value & 1 else -1.0
