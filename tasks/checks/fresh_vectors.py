"""Vectors of documents, made anew whether they are kept or not: what a sample is held against."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from tasks.contents.interface import Content
from tasks.embedders.interface import Embedder, RowError
from tasks.runs.vectors import keys_of


def fresh_vectors(embedder: Embedder, content: Content, documents: Sequence[str]) -> dict[int, np.ndarray]:
    """Position → float32[d], of the documents that content and model take. Raises TransientError and FatalError."""
    made = dict[int, np.ndarray]()
    for part in content.slices(documents, partial(keys_of, embedder)):
        rows, first = dict[bytes, list[int]](), list[int]()
        for at, (row, key) in enumerate(zip(part.rows, part.keys, strict=True)):
            if key not in rows:
                first.append(at)
            rows.setdefault(key, []).append(row)
        opened = zip(rows.values(), part.open(first), strict=True)
        there = [(of_item, item) for of_item, item in opened if not isinstance(item, RowError)]
        embedded = embedder.embed([item for _, item in there])
        for at, (of_item, _) in enumerate(there):
            if at not in embedded.rejected:
                made |= dict.fromkeys(of_item, embedded.vectors[at])
    return made
