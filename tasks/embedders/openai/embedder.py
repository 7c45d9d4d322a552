"""OpenAI's embedding models, and servers that speak their API.

    openai/MODEL[?dimensions=1536&on_too_long=quarantine|truncate|mean&base_url=…&max_tokens=…&price=…
                 &timeout=60&max_inputs=2048&api_version=2024-10-21]

The key is in OPENAI_API_KEY; OPENAI_BASE_URL, or base_url, names a compatible server, Azure's among them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, get_args

from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.base.words import plural
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, Rates, Space, as_texts
from tasks.embedders.naming import ModelName
from tasks.embedders.openai.account import OpenAIAccount
from tasks.embedders.openai.address import OFFICIAL
from tasks.embedders.openai.batch import Batch
from tasks.embedders.openai.limits import MAX_INPUTS
from tasks.embedders.openai.packing import MAX_INPUT_TOKENS
from tasks.embedders.openai.server import Terms, server
from tasks.embedders.texts import OnTooLong, size

KEY = "OPENAI_API_KEY"
OPTIONS = ("dimensions", "on_too_long", "base_url", "max_tokens", "price", "timeout", "max_inputs", "api_version")
SURELY_SHORT = 128
"""Bytes that every model takes."""


@dataclass(frozen=True)
class Model:
    """What is known of a model: dimensions, dollars per million tokens, and whether it takes ``dimensions``."""

    dimensions: int
    price: float
    shortens: bool = True


MODELS = {
    "text-embedding-3-small": Model(1536, 0.02),
    "text-embedding-3-large": Model(3072, 0.13),
    "text-embedding-ada-002": Model(1536, 0.10, shortens=False),
}
"""OpenAI's model and price pages."""


@dataclass(frozen=True)
class OpenAIEmbedder:
    """A model at a server. Opening one again is cheap: what is learned about the server is shared by the process."""

    model: str
    account: OpenAIAccount = field(repr=False)
    on_too_long: OnTooLong = "quarantine"
    max_tokens: int = MAX_INPUT_TOKENS
    """Tokens an input may have."""
    may_cut: int = MAX_INPUT_TOKENS
    """Bytes from which a text may turn out to be too long."""
    takes: ClassVar[frozenset[Kind]] = frozenset({"text"})
    licence: ClassVar[str] = ""

    @cached_property
    def space(self) -> Space:
        return _space(self.model, self.account.terms.dimensions)

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return list(map(self._variant, as_texts(self, items)))

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        """As Embedder.embed. Up to eight requests are under way at once. When one fails, no other starts, and those
        under way are waited for and handed to ``on_made`` before the error is raised. Of an over-long text under
        ``mean``, parts that were answered are lost when the others are not."""
        return Batch(self.account, self.max_tokens, self.on_too_long, on_made).run(as_texts(self, items))

    def _variant(self, text: str) -> str:
        """``truncate`` or ``mean`` for a text that may be too long; as good without a vocabulary as with."""
        return self.on_too_long if self.on_too_long != "quarantine" and size(text) > self.may_cut else ""


def space_of(name: ModelName) -> Space:
    """The space of the embedder that ``name`` describes, without a key. Raises UsageError for an unknown option, and for a model of
    unknown dimensions."""
    name.allow(OPTIONS)
    known = MODELS.get(name.model)
    if not name.model or name.revision:
        raise UsageError(f"embedder {name}: write openai/MODEL without a revision; known models: {', '.join(MODELS)}")
    dimensions = name.whole("dimensions", 1, 16_000)
    if dimensions is None:
        if known is None:
            raise UsageError(
                f"embedder {name}: the dimensions of {name.model!r} are not known: write "
                f"openai/{name.model}?dimensions=…; known models: {', '.join(MODELS)}"
            )
        dimensions = known.dimensions
    if known and (dimensions > known.dimensions or (not known.shortens and dimensions != known.dimensions)):
        most = "at most " if known.shortens else ""
        raise UsageError(
            f"embedder {name}: {name.model} has {most}{known.dimensions} {plural(known.dimensions, 'dimension')}"
        )
    return _space(name.model, dimensions)


def _space(model: str, dimensions: int) -> Space:
    # on_too_long is no part of it: it makes no two vectors incomparable, and the vectors of all other texts must
    # not be bought again because it changed. Variants keep the over-long ones apart.
    known = MODELS.get(model)
    longer = known.dimensions if known and known.shortens and dimensions < known.dimensions else None
    return Space("openai", model, dimensions, normalized=model in MODELS, longer=longer)


def open_openai(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> OpenAIEmbedder:
    """The embedder that ``name`` describes, paid out of ``budget``, else out of one that this process has for the model at
    its server, and paced by ``rates``, else by this process alone. Asks nothing of the network.

    Raises UsageError for an unknown option or value, for a model of unknown dimensions, and without a key.
    """
    dimensions, known = space_of(name).dimensions, MODELS.get(name.model)
    base_url = (name.options.get("base_url") or os.environ.get("OPENAI_BASE_URL") or OFFICIAL).rstrip("/")
    key = settings.secret(KEY, "embedder")
    if not key:
        raise UsageError(
            f"embedder {name}: {KEY} is not set; for a compatible server that needs no key, set it to anything"
        )
    try:
        shared = server(base_url, key, name.model, name.options.get("api_version"))
    except ValueError as error:
        raise UsageError(f"embedder {name}: base_url {error}") from None
    price = name.number("price")
    terms = Terms(
        dimensions,
        price=known.price if price is None and known else price,
        budget=budget or shared.budget,
        limiter=shared.limiter_in(rates) if rates else None,
        timeout=name.number("timeout") or None,
        max_inputs=name.whole("max_inputs", 1, MAX_INPUTS),
    )
    max_tokens = name.whole("max_tokens", 1, 1_000_000)
    return OpenAIEmbedder(
        model=name.model,
        account=OpenAIAccount(shared, terms, shortens=known is None or known.shortens, counts=known is not None),
        on_too_long=name.one_of("on_too_long", get_args(OnTooLong)) or "quarantine",  # type: ignore[arg-type]
        max_tokens=max_tokens or MAX_INPUT_TOKENS,
        may_cut=max_tokens or MAX_INPUT_TOKENS if known else min(SURELY_SHORT, max_tokens or SURELY_SHORT),
    )
