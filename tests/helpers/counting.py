"""A model of images for the tests that says what it was given to make: ``counting/SIDE``, the colours of an image that was made SIDE
by SIDE. Importing this registers it, so that a process that is forked from this one has it too."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, Rates, RowError, Space, as_images
from tasks.embedders.naming import ModelName
from tasks.embedders.pictures import decode
from tasks.embedders.registry import PROVIDERS

LOG = "counted"
"""A file in VECFERRY_HOME: a line before vectors are made for keeping, and another when they are kept."""


def colours(image: Image.Image, side: int) -> np.ndarray:
    """float32[3 · side²], of length 1."""
    small = image.convert("RGB").resize((side, side), Image.Resampling.BOX)
    vector = np.asarray(small, np.float32).ravel() / 255 - 0.5
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)


@dataclass(frozen=True)
class CountingEmbedder:
    """Vectors that are made for a sample, and not for keeping, are not counted."""

    side: int
    takes: ClassVar[frozenset[Kind]] = frozenset({"image"})
    account: ClassVar[None] = None
    licence: ClassVar[str] = ""

    @property
    def space(self) -> Space:
        return Space("counting", str(self.side), 3 * self.side**2, revision="1")

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        vectors, rejected = np.zeros((len(items), self.space.dimensions), np.float32), dict[int, RowError]()
        for at, image in enumerate(map(decode, as_images(self, items))):
            if isinstance(image, RowError):
                rejected[at] = image
            else:
                vectors[at] = colours(image, self.side)
        made = [at for at in range(len(items)) if at not in rejected]
        if on_made and made:
            names = [hashlib.sha256(bytes(items[at])).hexdigest()[:16] for at in made]  # type: ignore[arg-type]
            self._log("given", names)
            on_made(made, vectors[made])
            self._log("kept", names)
        return Embedded(vectors, rejected)

    def _log(self, what: str, names: Sequence[str]) -> None:
        handle = os.open(Path(os.environ["VECFERRY_HOME"], LOG), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, f"{what} {self.side} {' '.join(names)}\n".encode())
        finally:
            os.close(handle)


def open_counting(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> CountingEmbedder:
    """The embedder that ``name`` describes."""
    return CountingEmbedder(int(name.model))


PROVIDERS["counting"] = f"{__name__}:open_counting"


@dataclass(frozen=True)
class Counted:
    """What the models of a home were given."""

    given: Counter[str]
    twice: list[str]
    """Items that were given once more when they were kept."""


def counted(home: Path) -> Counted:
    """Of all processes so far, killed ones too."""
    given, twice, kept = Counter[str](), list[str](), set[str]()
    for line in (home / LOG).read_text().splitlines():
        what, side, *names = line.split()
        items = [f"{side} {name}" for name in names]
        if what == "kept":
            kept.update(items)
        else:
            given.update(items)
            twice += [item for item in items if item in kept]
    return Counted(given, twice)
