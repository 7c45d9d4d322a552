"""Models for the tests that say what they were given to make: ``counting/SIDE``, the colours of an image that was made SIDE by SIDE,
and ``counting-texts/DIMENSIONS``, hashed words. Importing this registers them, so that a process that is forked from this one has them
too."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from tasks.embedders.budget import Budget
from tasks.embedders.hashing import HashingEmbedder
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
            with _logged(self.space, [bytes(items[at]) for at in made]):  # type: ignore[arg-type]
                on_made(made, vectors[made])
        return Embedded(vectors, rejected)


@dataclass(frozen=True)
class CountingTexts:
    """``counting-texts/DIMENSIONS[r]``: with the r, the components are in reverse, so that no vector is like one of the other's."""

    dimensions: int
    reverse: bool = False
    takes: ClassVar[frozenset[Kind]] = frozenset({"text"})
    account: ClassVar[None] = None
    licence: ClassVar[str] = ""

    @property
    def space(self) -> Space:
        return Space("counting-texts", f"{self.dimensions}{'r' * self.reverse}", self.dimensions, revision="1")

    @property
    def name(self) -> str:
        return f"{self.space.provider}/{self.space.model}"

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        vectors = HashingEmbedder(self.dimensions).embed(items).vectors
        if self.reverse:
            vectors = np.ascontiguousarray(vectors[:, ::-1])
        if on_made and len(items):
            with _logged(self.space, [str(item).encode() for item in items]):
                on_made(range(len(items)), vectors)
        return Embedded(vectors)


@contextmanager
def _logged(space: Space, items: Sequence[bytes]) -> Iterator[None]:
    names = [hashlib.sha256(item).hexdigest()[:16] for item in items]
    _log("given", space, names)
    yield
    _log("kept", space, names)


def _log(what: str, space: Space, names: Sequence[str]) -> None:
    handle = os.open(Path(os.environ["VECFERRY_HOME"], LOG), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, f"{what} {space.model} {' '.join(names)}\n".encode())
    finally:
        os.close(handle)


def open_counting(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> CountingEmbedder:
    """The embedder that ``name`` describes."""
    return CountingEmbedder(int(name.model))


def open_counting_texts(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> CountingTexts:
    """The same of texts."""
    return CountingTexts(int(name.model.removesuffix("r")), name.model.endswith("r"))


PROVIDERS["counting"] = f"{__name__}:open_counting"
PROVIDERS["counting-texts"] = f"{__name__}:open_counting_texts"


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
        what, model, *names = line.split()
        items = [f"{model} {name}" for name in names]
        if what == "kept":
            kept.update(items)
        else:
            given.update(items)
            twice += [item for item in items if item in kept]
    return Counted(given, twice)
