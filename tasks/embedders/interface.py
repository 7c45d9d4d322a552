"""What an embedder is: one method and the space its vectors lie in.

An embedder whose rows can fail one by one, or whose vectors cost money, has ``embed`` beside it; ``embed`` and
``content_key`` below serve both kinds, so a caller need not know which it has.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import Protocol, runtime_checkable

import numpy as np

from tasks.base.errors import VecferryError
from tasks.base.words import counted
from tasks.embedders.budget import Budget


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

    @property
    def fingerprint(self) -> str:
        """provider/model/ and twelve hex digits of all of it."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.provider}/{self.model}/{digest[:12]}"


MAX_INPUTS = 2048
MAX_TOKENS = 300_000
"""OpenAI's API reference, "Create embeddings": inputs a request, tokens a request."""


class Embedder(Protocol):
    """A model, ready to be called."""

    @property
    def space(self) -> Space: ...

    def embed_batch(self, texts: Sequence[str]) -> np.ndarray:
        """float32[len(texts), dimensions]. Raises the classes of tasks.base.errors."""
        ...


@dataclass(frozen=True)
class RowError:
    """Why one text has no vector: its own fault, so the row is quarantined and the others go on."""

    kind: str
    """``empty``, ``encoding``, ``too_long`` or ``refused``."""
    message: str


@dataclass(frozen=True)
class Embedded:
    """What became of a batch of texts."""

    vectors: np.ndarray
    """float32[n, d]; the row of a rejected text is zero and must not be used."""
    rejected: Mapping[int, RowError] = field(default_factory=dict)
    """By position in the batch."""

    @property
    def whole(self) -> np.ndarray:
        """float32[n, d] where every text has a vector. Raises RowsRejected where one has none."""
        if self.rejected:
            raise RowsRejected(self.rejected)
        return self.vectors


OnBought = Callable[[Sequence[int], np.ndarray], None]
"""Called with positions in the batch and their vectors, float32[k, d], as soon as each answer has arrived."""


@runtime_checkable
class PaidEmbedder(Embedder, Protocol):
    """An embedder that answers in parts: rows can be rejected, and each answer is handed over before the next. Paid for
    in money, or in hours of this machine."""

    def embed(self, texts: Sequence[str], on_bought: OnBought | None = None) -> Embedded:
        """``on_bought`` is called from the calling thread, never twice for a row, and before any error is raised for
        all that was answered. Raises TransientError and FatalError; a row's own error is in ``rejected``."""
        ...

    def variant(self, text: str) -> str:
        """What besides the text and the space decides its vector; empty for all but over-long texts."""
        ...


@dataclass(frozen=True)
class Allowed:
    """What an account may ask of a provider in a minute; None where nothing is said of it."""

    requests: float | None
    tokens: float | None

    def seconds(self, texts: int, tokens: int) -> float:
        """The least that so many texts take, in requests of MAX_INPUTS and MAX_TOKENS at most. A minute's worth is there
        at the start."""
        asked = max(-(-texts // MAX_INPUTS), -(-tokens // MAX_TOKENS))
        waits = [wanted / limit for wanted, limit in ((asked, self.requests), (tokens, self.tokens)) if limit]
        return 60 * max(0.0, max(waits, default=0.0) - 1)


@runtime_checkable
class PricedEmbedder(PaidEmbedder, Protocol):
    """A paid embedder whose price is known and whose spending is counted; a frozen dataclass, so that
    ``dataclasses.replace`` gives it another budget."""

    budget: Budget
    price: float
    """Dollars per million tokens."""

    def prepare(self) -> None:
        """Makes sure, by one small request, that the model can be asked. Raises TransientError and FatalError."""
        ...

    def allowed(self) -> Allowed:
        """The limits of the account, by one small request that is sent once. Raises TransientError and FatalError."""
        ...


class RowsRejected(VecferryError):
    """``embed_batch`` cannot leave rows out; ``embed`` can."""

    def __init__(self, rejected: Mapping[int, RowError]) -> None:
        row, first = next(iter(rejected.items()))
        super().__init__(
            f"{counted(len(rejected), 'text', 'have')} no vector; row {row}: {first.kind}, {first.message}"
        )
        self.rejected = rejected


def embed(embedder: Embedder, texts: Sequence[str], on_bought: OnBought | None = None) -> Embedded:
    """The vectors of ``texts`` by whichever method the embedder has. Raises the classes of tasks.base.errors."""
    if isinstance(embedder, PaidEmbedder):
        return embedder.embed(texts, on_bought)
    vectors = embedder.embed_batch(texts)
    if on_bought and len(texts):
        on_bought(range(len(texts)), vectors)
    return Embedded(vectors)


def content_key(embedder: Embedder, text: str) -> bytes:
    """The 32 bytes under which the vector of ``text`` is kept within the embedder's space: the SHA-256 of the text,
    and for an over-long one of what was done to it, lest a truncated text's vector be taken for a mean."""
    return content_keys(embedder, [text])[0]


def content_keys(embedder: Embedder, texts: Sequence[str]) -> list[bytes]:
    """``content_key`` of each."""
    # Whether an object satisfies a protocol is found out attribute by attribute: once, not once a text.
    variants = map(embedder.variant, texts) if isinstance(embedder, PaidEmbedder) else repeat("")
    named = (f"{text}\0{variant}" if variant else text for text, variant in zip(texts, variants, strict=False))
    return [hashlib.sha256(name.encode()).digest() for name in named]
