"""Opens a model by the name a user writes: ``provider/model[@revision][?option=value&…]``."""

from tasks.embedders.interface import Embedder
from tasks.errors import UsageError

PROVIDERS = ("hashing",)


def open_embedder(name: str) -> Embedder:
    """The embedder called ``name``. Raises UsageError when there is no such provider or its model has no such form."""
    provider, _, model = name.partition("/")
    if provider == "hashing":
        from tasks.embedders.hashing import HashingEmbedder

        if not model.isdecimal() or not 0 < int(model) <= 16_000:
            raise UsageError(f"embedder {name!r}: hashing takes its dimensions, 1 to 16000, e.g. hashing/384")
        return HashingEmbedder(int(model))
    raise UsageError(f"embedder {name!r}: there is no provider {provider!r}; there is: {', '.join(PROVIDERS)}")
