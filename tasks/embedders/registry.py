"""Opens a model by the name a user writes: ``provider/model[@revision][?option=value&…]``."""

from importlib import import_module

from tasks.base.errors import UsageError
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedder, Rates
from tasks.embedders.naming import parse_model

PROVIDERS: dict[str, str] = {
    "hashing": "tasks.embedders.hashing:open_hashing",
    "openai": "tasks.embedders.openai.embedder:open_openai",
    "sentence-transformers": "tasks.embedders.sentence_transformers.embedder:open_sentence_transformers",
    "timm": "tasks.embedders.timm.embedder:open_timm",
}
"""Provider → what opens its models. A vendor's module is imported only when one of its models is asked for."""


def open_embedder(name: str, budget: Budget | None = None, rates: Rates | None = None) -> Embedder:
    """The embedder called ``name``; where it costs money, out of ``budget`` and at the pace that all who keep ``rates``
    have together.

    Raises UsageError when there is no such provider or its model has no such form.
    """
    parsed = parse_model(name)
    if parsed.provider not in PROVIDERS:
        raise UsageError(
            f"embedder {name!r}: no provider is called {parsed.provider!r}; available: {', '.join(PROVIDERS)}"
        )
    module, function = PROVIDERS[parsed.provider].split(":")
    embedder: Embedder = getattr(import_module(module), function)(parsed, budget, rates)
    return embedder
