"""Opens a model by the name a user writes: ``provider/model[@revision][?option=value&…]``."""

from importlib import import_module

from tasks.base.errors import UsageError
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedder, Rates, Space
from tasks.embedders.naming import ModelName, parse_model

PROVIDERS: dict[str, str] = {
    "hashing": "tasks.embedders.hashing:open_hashing",
    "openai": "tasks.embedders.openai.embedder:open_openai",
    "sentence-transformers": "tasks.embedders.sentence_transformers.embedder:open_sentence_transformers",
    "timm": "tasks.embedders.timm.embedder:open_timm",
}
"""Provider → what opens its models. A vendor's module is imported only when one of its models is asked for."""
SPACES = {"openai": "tasks.embedders.openai.embedder:space_of"}
"""Provider → what tells the space of its models without opening one."""


def open_embedder(name: str, budget: Budget | None = None, rates: Rates | None = None) -> Embedder:
    """The embedder called ``name``; where it costs money, out of ``budget`` and at the pace that all who keep ``rates``
    have together.

    Raises UsageError when there is no such provider or its model has no such form.
    """
    module, function = PROVIDERS[_known(name).provider].split(":")
    embedder: Embedder = getattr(import_module(module), function)(parse_model(name), budget, rates)
    return embedder


def space_of(name: str) -> Space:
    """The space of the embedder called ``name``, told without a key where it can be. Raises UsageError as ``open_embedder``."""
    parsed = _known(name)
    if parsed.provider not in SPACES:
        return open_embedder(name).space
    module, function = SPACES[parsed.provider].split(":")
    space: Space = getattr(import_module(module), function)(parsed)
    return space


def _known(name: str) -> ModelName:
    parsed = parse_model(name)
    if parsed.provider not in PROVIDERS:
        raise UsageError(
            f"embedder {name!r}: no provider is called {parsed.provider!r}; available: {', '.join(PROVIDERS)}"
        )
    return parsed
