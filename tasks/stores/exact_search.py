"""The true nearest neighbours, against which every index is held."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tasks.stores.interface import Hits, Metric, vectors

CROWD = 64
"""Candidates a query, as a multiple of k, up to which they are measured one by one."""
SLICE = 1_000_000
"""Components of pairs that are measured at once."""
TINY = 1e-15
"""Lengths below have squares that float32 rounds away."""


def distances(queries: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    """Distances float64[n_queries, n_rows] as ``Hits`` has them; NaN where cosine is undefined (a zero vector)."""
    q, r = queries.astype(np.float64), rows.astype(np.float64)
    dots = q @ r.T
    if metric == "ip":
        return -dots
    return _from_dots(dots, np.linalg.norm(q, axis=1)[:, None], np.linalg.norm(r, axis=1)[None, :], metric)


def similarity(metric: Metric, distance: float) -> float | None:
    """The score that people know of a distance, 1 for the same direction under cosine; None of the Euclidean, which has none."""
    return None if metric == "l2" else -distance if metric == "ip" else 1 - distance


def exact_search(queries: np.ndarray, batches: Iterable[pa.RecordBatch], metric: Metric, k: int) -> list[Hits]:
    """The true k nearest rows of every query, over a stream of record batches: memory is that of one batch.

    Rows without a vector, and zero vectors under cosine, are nobody's neighbour.
    """
    # One line a neighbour, ordered by query and distance.
    owner, ids, far = np.empty(0, np.intp), np.empty(0, object), np.empty(0)
    bound = np.full(len(queries), np.inf)
    for batch in batches:
        names, rows = _searchable(batch, metric)
        if not len(names):
            continue
        query, row, distance = _nearer(queries, rows, metric, k, bound)
        owner, ids, far = (
            np.concatenate([owner, query]),
            np.concatenate([ids, names[row]]),
            np.concatenate([far, distance]),
        )
        order = np.lexsort((far, owner))
        owner, ids, far = owner[order], ids[order], far[order]
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        bound[owner[place == k - 1]] = far[place == k - 1]
        owner, ids, far = owner[place < k], ids[place < k], far[place < k]
    real = np.isfinite(far)
    return [Hits(ids[(owner == at) & real].tolist(), far[(owner == at) & real]) for at in range(len(queries))]


def _searchable(batch: pa.RecordBatch, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    present = np.asarray(batch.column("embedding").is_valid())
    matrix = vectors(batch)
    if metric == "cosine":
        present &= matrix.any(axis=1)
    return np.asarray(batch.column("id").to_pylist(), dtype=object)[present], matrix[present]


def _nearer(
    queries: np.ndarray, rows: np.ndarray, metric: Metric, k: int, bound: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (query, row, distance) among which are all that belong to a query's k nearest, none farther than its
    ``bound``.

    Measured in float32 first, which is several times faster; what lies within its error of the bound is measured again
    in float64, as everything is where numbers are too large or too small for that, or thousands are equally near. The
    error of a sum of d products is at most d · 2⁻²⁴ of the product of the lengths (Higham, Accuracy and Stability of
    Numerical Algorithms, 3.1); four times that is allowed.
    """
    k, slack = min(k, len(rows)), 4 * queries.shape[1] * 2.0**-24
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        dots = queries @ rows.T
        q, r = np.linalg.norm(queries, axis=1)[:, None], np.linalg.norm(rows, axis=1)[None, :]
        if metric == "cosine":
            rough, limit, error = -dots / q / r, bound[:, None] - 1, slack
        elif metric == "ip":
            rough, limit, error = -dots, bound[:, None], slack * q * r.max()
        else:
            rough, limit, error = q**2 + r**2 - 2 * dots, bound[:, None] ** 2, slack * (q + r.max()) ** 2
        if not np.isfinite(bound).all():
            limit = np.minimum(limit, np.partition(rough, k - 1, axis=1)[:, k - 1 : k])
        query, row = np.nonzero(rough <= limit + error)
    tiny = min(q.min(), np.inf if metric != "cosine" else r.min()) < TINY
    if tiny or not np.isfinite(rough).all() or len(query) > CROWD * k * len(queries):
        exact = distances(queries, rows, metric)
        row = np.argpartition(exact, k - 1, axis=1)[:, :k]
        query = np.repeat(np.arange(len(queries)), k)
        return query, row.reshape(-1), np.take_along_axis(exact, row, axis=1).reshape(-1)
    return query, row, _of_pairs(queries, rows, metric, query, row)


def _of_pairs(queries: np.ndarray, rows: np.ndarray, metric: Metric, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The distance float64[n_pairs] of each pair, a slice of them at a time: where many rows are about equally near there are
    more components in the pairs than in all queries and rows."""
    measured = np.empty(len(query))
    step = max(1, SLICE // max(1, queries.shape[1]))
    for at in range(0, len(query), step):
        pairs = slice(at, at + step)
        left, right = queries[query[pairs]].astype(np.float64), rows[row[pairs]].astype(np.float64)
        dots = np.einsum("ij,ij->i", left, right)
        if metric == "ip":
            measured[pairs] = -dots
        else:
            lengths = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
            measured[pairs] = _from_dots(dots, *lengths, metric)
    return measured


def _from_dots(dots: np.ndarray, q: np.ndarray, r: np.ndarray, metric: Metric) -> np.ndarray:
    if metric == "cosine":
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - dots / (q * r)
    return np.sqrt(np.maximum(q**2 + r**2 - 2 * dots, 0))
