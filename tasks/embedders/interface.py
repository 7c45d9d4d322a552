"""What an embedder is: a model that turns items, texts or the bytes of images, into vectors of one space."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Literal, Protocol, TypeVar

import numpy as np

from tasks.base.errors import FatalError, VecferryError
from tasks.base.words import counted
from tasks.embedders.budget import Budget

T = TypeVar("T")
Kind = Literal["text", "image"]
Item = str | bytes
"""What a model is given: a text, or the bytes of an image (tasks/embedders/pictures.py)."""


@dataclass(frozen=True)
class Space:
    """What makes two vectors comparable. Two vectors of different spaces must never share a column."""

    provider: str
    model: str
    dimensions: int
    revision: str = ""
    preprocessing: str = ""
    prefix: str = ""
    normalized: bool = True
    longer: int | None = None
    """Dimensions of the vectors of the same model that these are the first components of, brought to length 1; None where there
    are none. No part of the space: however they are come by, they are the same."""

    @cached_property
    def fingerprint(self) -> str:
        """provider/model/ and twelve hex digits of all of it."""
        parts = {name: value for name, value in asdict(self).items() if name != "longer"}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return f"{self.provider}/{self.model}/{digest[:12]}"


@dataclass(frozen=True)
class RowError:
    """Why one item has no vector: its own fault, so the row is quarantined and the others go on."""

    kind: str
    """Of a text ``empty``, ``encoding``, ``too_long`` or ``refused``; of an image what its content and its decoder say."""
    message: str


@dataclass(frozen=True)
class Embedded:
    """What became of a batch of items."""

    vectors: np.ndarray
    """float32[n, d]; the row of a rejected item is zero and must not be used."""
    rejected: Mapping[int, RowError] = field(default_factory=dict)
    """By position in the batch."""

    @property
    def whole(self) -> np.ndarray:
        """float32[n, d] where every item has a vector. Raises RowsRejected where one has none."""
        if self.rejected:
            raise RowsRejected(self.rejected)
        return self.vectors


OnMade = Callable[[Sequence[int], np.ndarray], None]
"""Called with positions in the batch and their vectors, float32[k, d], as soon as they are made."""


@dataclass(frozen=True)
class Allowed:
    """What an account may ask of a provider in a minute; None where nothing is said of it."""

    requests: float | None
    tokens: float | None


class Rates(Protocol):
    """Where all processes that use an account keep how much of its limits they have taken."""

    def change(self, account: str, step: Callable[[bytes | None, float, float], tuple[bytes | None, T]]) -> T:
        """Calls ``step`` with the state kept of ``account``, None where there is none, with the seconds of a clock that is
        the same for all, which is never ahead of that, and with how many seconds it may be behind. Keeps the state that it gives,
        None to leave it, and returns what it gives besides. It is called again where another process was faster. Raises
        TransientError."""
        ...


class Account(Protocol):
    """Who pays for the vectors of a model that costs money."""

    @property
    def price(self) -> float | None:
        """Dollars per million tokens; None where it is not known."""
        ...

    @property
    def budget(self) -> Budget: ...

    def count(self, text: str) -> int | None:
        """The tokens of a text, without asking the provider; None where they cannot be counted here."""
        ...

    def prepare(self) -> None:
        """Makes sure, by one small request, that the model can be asked. Raises TransientError and FatalError."""
        ...

    def allowed(self) -> Allowed:
        """The limits of the account, by one small request that is sent once. Raises TransientError and FatalError."""
        ...

    def least_seconds(self, texts: int, tokens: int) -> float:
        """The least that so many texts take under the limits that the last answers told."""
        ...


class Embedder(Protocol):
    """A model, ready to be called. Threads share it."""

    @property
    def space(self) -> Space: ...

    @property
    def takes(self) -> frozenset[Kind]:
        """What it has vectors for, all in its one space."""
        ...

    @property
    def account(self) -> Account | None:
        """Who pays; None where a vector costs no money."""
        ...

    @property
    def licence(self) -> str:
        """Of its weights, as who publishes them states it: for people to see, nothing goes by it. "" where nothing is
        stated."""
        ...

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        """What besides item and space decides the vector of each, such as that the end of a text is cut off; "" for most.
        Vectors of two variants are comparable, and kept apart."""
        ...

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        """``on_made`` is called from the calling thread, never twice for an item, and before any error is raised for all
        that was made. Raises TransientError and FatalError; an item's own error is in ``rejected``."""
        ...


class RowsRejected(VecferryError):
    """``whole`` cannot leave rows out."""

    def __init__(self, rejected: Mapping[int, RowError]) -> None:
        row, first = next(iter(rejected.items()))
        super().__init__(
            f"{counted(len(rejected), 'item', 'have')} no vector; row {row}: {first.kind}, {first.message}"
        )
        self.rejected = rejected


def as_texts(embedder: Embedder, items: Sequence[Item]) -> Sequence[str]:
    """The items, which must be texts. Raises FatalError for others: a model of texts was given an image."""
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) < len(items):
        raise FatalError(f"{embedder.space.provider}/{embedder.space.model} takes text, not images")
    return texts


def as_images(embedder: Embedder, items: Sequence[Item]) -> Sequence[bytes]:
    """The items, which must be images. Raises FatalError for others: a model of images was given a text."""
    images = [item for item in items if isinstance(item, bytes)]
    if len(images) < len(items):
        raise FatalError(f"{embedder.space.provider}/{embedder.space.model} takes images, not text")
    return images
