"""How far the vectors of a model that computes with fewer bits are from its own with all of them."""

import re
from collections.abc import Sequence

import numpy as np

from tasks.embedders.interface import Item
from tasks.embedders.naming import parse_model
from tasks.embedders.registry import open_embedder

EXACT = "float32"


def row_cosines(model: str, items: Sequence[Item]) -> np.ndarray | None:
    """The cosine of each item's two vectors, float32[n] without the items that either rejects; None where the model computes with
    all bits. Loads it a second time. Raises what opening and embedding raise."""
    if parse_model(model).options.get("precision", EXACT) == EXACT:
        return None
    exact, coarse = (
        open_embedder(name).embed(items) for name in (re.sub(r"(?<=[?&]precision=)[^&]*", EXACT, model), model)
    )
    rows = [row for row in range(len(items)) if row not in exact.rejected and row not in coarse.rejected]
    one, other = exact.vectors[rows], coarse.vectors[rows]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: np.ndarray = np.sum(one * other, axis=1) / np.maximum(lengths, 1e-12)
    return cosines
