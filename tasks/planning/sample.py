"""What a model takes for a text, by a few of those that it will be given."""

import time

from tasks.embedders.registry import open_embedder
from tasks.planning.account import is_paid

TEXTS = 16


def embedding_seconds(model: str | None, texts: list[str]) -> float:
    """Seconds a text, by a few of ``texts``; 0 where nothing is embedded, or trying it would cost money."""
    few = [text for text in texts if text][:TEXTS]
    if model is None or not few or is_paid(model):
        return 0.0
    embedder = open_embedder(model)
    embedder.embed(few[:1])  # a model that runs here is loaded for it
    started = time.perf_counter()
    embedder.embed(few)
    return (time.perf_counter() - started) / len(few)
