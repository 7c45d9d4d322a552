"""A second model of any number of dimensions: hashed words, their components in reverse, so that no vector of it is like one of
hashing's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tasks.embedders.budget import Budget
from tasks.embedders.hashing import HashingEmbedder
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, Rates, RowError, Space
from tasks.embedders.naming import ModelName


@dataclass(frozen=True)
class FlippedEmbedder:
    """``flipped/DIMENSIONS[?most=…]``: it takes texts of so many bytes at most."""

    dimensions: int
    most: int
    takes: ClassVar[frozenset[Kind]] = frozenset({"text"})
    account: ClassVar[None] = None
    licence: ClassVar[str] = ""
    asked: ClassVar[list[Sequence[Item]]] = []
    """What was to be embedded, a call after the other."""

    @property
    def space(self) -> Space:
        return Space("flipped", str(self.dimensions), self.dimensions)

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        self.asked.append(items)
        vectors = np.ascontiguousarray(HashingEmbedder(self.dimensions).embed(items).vectors[:, ::-1])
        long = {at: RowError("too_long", "it is too long") for at, item in enumerate(items) if len(item) > self.most}
        if on_made and (good := [at for at in range(len(items)) if at not in long]):
            on_made(good, vectors[good])
        return Embedded(vectors, long)


def open_flipped(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> FlippedEmbedder:
    """Under a name in PROVIDERS that a test puts there."""
    return FlippedEmbedder(int(name.model), name.whole("most", 1, 1_000_000) or 1_000_000)
