"""Opens a model by the name a user writes: ``provider/model[@revision][?option=value&…]``."""

import threading
from contextlib import suppress
from importlib import import_module

from tasks.base.errors import UsageError
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedder
from tasks.embedders.naming import parse_model

PROVIDERS = ("hashing", "openai", "sentence-transformers")


def open_embedder(name: str, budget: Budget | None = None) -> Embedder:
    """The embedder called ``name``; where it costs money, out of ``budget``.

    Raises UsageError when there is no such provider or its model has no such form.
    """
    parsed = parse_model(name)
    if parsed.provider == "hashing":
        from tasks.embedders.hashing import HashingEmbedder

        parsed.allow(())
        model = parsed.model
        if parsed.revision or not model.isdecimal() or not 0 < int(model) <= 16_000:
            raise UsageError(f"embedder {name!r}: hashing takes its dimensions, 1 to 16000, e.g. hashing/384")
        return HashingEmbedder(int(model))
    if parsed.provider == "openai":
        from tasks.embedders.openai.embedder import open_openai

        return open_openai(parsed, budget)
    if parsed.provider == "sentence-transformers":
        from tasks.embedders.sentence_transformers.embedder import open_sentence_transformers

        return open_sentence_transformers(parsed)
    raise UsageError(f"embedder {name!r}: there is no provider {parsed.provider!r}; there is: {', '.join(PROVIDERS)}")


SLOW_TO_IMPORT = {"openai": "openai"}
"""Provider → its client library, where importing that takes long."""


def import_ahead(name: str | None) -> None:
    """Imports what takes longest to import of a paid model, on a thread of its own: to be called before something else is
    waited for."""
    if name and (module := SLOW_TO_IMPORT.get(parse_model(name).provider)):
        threading.Thread(target=_import, args=(module,), name=f"import {module}", daemon=True).start()


def _import(module: str) -> None:
    with suppress(Exception):  # who uses it is told
        import_module(module)
