"""The metric and the graph of a Chroma collection: where they are stored, and which metric its distances show.

Chroma ≥ 1.0 keeps both in the collection's configuration. Before, they were ``hnsw:`` keys of metadata, which were
copied to the vector segment when the collection was made; the configuration of such a collection holds defaults, and
Chroma then goes by the segment (rust/types/src/collection_configuration.rs, get_hnsw_config_with_legacy_fallback). A
server does not show its segments, and the collection's own metadata can be replaced or edited at any time.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tasks.base.errors import UsageError
from tasks.stores.interface import Metric

DEFAULTS: dict[str, Any] = {
    "space": "l2",
    "max_neighbors": 16,
    "ef_construction": 100,
    "ef_search": 100,
    "resize_factor": 1.2,
    "sync_threshold": 1000,
}
LEGACY = {
    "hnsw:space": "space",
    "hnsw:M": "max_neighbors",
    "hnsw:construction_ef": "ef_construction",
    "hnsw:search_ef": "ef_search",
    "hnsw:resize_factor": "resize_factor",
    "hnsw:sync_threshold": "sync_threshold",
}
CONFIGURATION, SEGMENT, METADATA = "its configuration", "its vector segment", "its metadata"
"""Where a metric is stored."""
PROBED = 4
"""Vectors that queries are made of."""
SCALES = (2, 5)
"""How long a query is, by its vector: by one length alone, vectors of some length have two metrics coincide."""
SHORTEST, LONGEST = 1e-15, 1e15
"""Lengths of vectors whose squares a float32 can hold."""
TOLERANCE = 1e-3
"""Of what a distance is summed up from; the queries make the metrics differ by hundreds of times as much."""
EXPLAINED = 0.9
"""Share of the distances that a metric must explain: the rest are of records that changed meanwhile."""


@dataclass(frozen=True)
class Stored:
    """What is stored of a collection's index."""

    metric: Metric
    m: int
    ef_construction: int
    ef_search: int
    says: dict[str, str]
    """Where a metric is stored → which. The entries may contradict each other."""


def stored(name: str, configuration: Mapping[str, Any], legacy: Mapping[str, Any], place: str) -> Stored:
    """The settings that Chroma goes by. ``configuration``: the collection's, as JSON; ``legacy``: the metadata with
    ``hnsw:`` keys, of the ``place`` SEGMENT or METADATA. Raises UsageError for a metric that nobody knows."""
    index = configuration.get("hnsw") or configuration.get("spann") or {}
    configured = {key: index.get(key) or value for key, value in DEFAULTS.items()}
    old = DEFAULTS | {new: legacy[key] for key, new in LEGACY.items() if legacy.get(key) is not None}
    by_configuration = configured != DEFAULTS or bool(configuration.get("spann"))
    chosen = configured if by_configuration else old
    if chosen["space"] not in get_args(Metric):
        raise UsageError(
            f"collection {name!r} uses the metric {chosen['space']!r}; only cosine, l2 and ip are supported"
        )
    says = {CONFIGURATION: str(configured["space"])}
    if not by_configuration and "hnsw:space" in legacy:
        # The segment is what Chroma itself goes by; a collection's metadata is only likely to say the same.
        says = ({} if place == SEGMENT else says) | {place: str(legacy["hnsw:space"])}
    return Stored(
        chosen["space"], int(chosen["max_neighbors"]), int(chosen["ef_construction"]), int(chosen["ef_search"]), says
    )


def of_segment(database: str, collection_id: str) -> dict[str, Any]:
    """The ``hnsw:`` keys of the collection's vector segment, from the SQLite file of its directory."""
    query = (
        "SELECT m.key, m.str_value, m.int_value, m.float_value FROM segment_metadata m "
        "JOIN segments s ON s.id = m.segment_id WHERE s.scope = 'VECTOR' AND s.collection = ?"
    )
    with closing(sqlite3.connect(f"{Path(database).absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        rows = connection.execute(query, (collection_id,)).fetchall()
    return {key: next((v for v in values if v is not None), None) for key, *values in rows}


def with_settings(metadata: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A collection's metadata whose ``hnsw:`` keys say what ``values`` (as in a configuration) say: where the
    configuration is all defaults, Chroma goes by the metadata that the collection is made with."""
    return {key: values.get(LEGACY.get(key, ""), value) for key, value in metadata.items()}


def probes(vectors: np.ndarray) -> np.ndarray:
    """Queries near some of these vectors (float32[n, d]), such that no two metrics give the same distances for all of
    them: longer, so that the cosine is not the product, and beside them, so that nothing is zero. Zero vectors get none."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    chosen = np.flatnonzero((lengths > SHORTEST) & (lengths < LONGEST))[:PROBED]
    aside = np.random.default_rng(1_907).standard_normal((len(chosen), vectors.shape[1]))
    aside *= 0.7 * lengths[chosen, None] / np.linalg.norm(aside, axis=1, keepdims=True)
    return np.concatenate([scale * vectors[chosen] + aside for scale in SCALES]).astype(np.float32)


def explained(queries: np.ndarray, answers: list[np.ndarray], distances: list[np.ndarray]) -> tuple[Metric | None, int]:
    """The only metric that explains Chroma's ``distances`` (float[k] a query) to the vectors of ``answers``
    (float32[k, d] a query), or None where none or several do; and how many distances there were."""
    fits: dict[Metric, list[bool]] = {metric: [] for metric in get_args(Metric)}
    for query, vectors, shown in zip(queries.astype(np.float64), answers, distances, strict=True):
        for vector, distance in zip(vectors.astype(np.float64), shown, strict=True):
            # A zero vector is 1 from everything, by two metrics; and Chroma's squares overflow.
            if not SHORTEST < np.linalg.norm(vector) < LONGEST or not np.isfinite(distance):
                continue
            for metric, (value, summed) in _distances(query, vector).items():
                fits[metric].append(bool(abs(distance - value) <= TOLERANCE * summed))
    pairs = len(fits["l2"])
    able = [metric for metric, fit in fits.items() if pairs and np.mean(fit) >= EXPLAINED]
    return (able[0] if len(able) == 1 else None), pairs


def _distances(query: np.ndarray, vector: np.ndarray) -> dict[Metric, tuple[float, float]]:
    """Chroma's distance by each metric, and the size of what it is summed up from (docs.trychroma.com, "Distance")."""
    squares, product = (float(query @ query), float(vector @ vector)), float(query @ vector)
    both = float(np.sqrt(squares[0]) * np.sqrt(squares[1]))
    difference = query - vector
    return {
        "l2": (float(difference @ difference), sum(squares)),
        "ip": (1 - product, 1 + both),
        "cosine": (1 - product / both, 1.0),
    }
