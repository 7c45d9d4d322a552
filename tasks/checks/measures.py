"""What verification is made of: checks and gates, and pure functions for recall, row cosine and norms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.stores.interface import Hits, vectors


@dataclass(frozen=True)
class Check:
    """One line of the verification table."""

    name: str
    passed: bool
    looked_at: int
    """Rows or queries."""
    result: str
    wanted: str
    gate: str | None = None
    """The gate that decides, where it is one that a person may set."""

    def __post_init__(self) -> None:
        # numpy's own kinds of bool and int are taken for text by JSON, and a text is true. A check that looked at nothing
        # has failed, whatever it says.
        object.__setattr__(self, "looked_at", int(self.looked_at))
        object.__setattr__(self, "passed", bool(self.passed) and self.looked_at > 0)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": self.passed,
            "looked_at": self.looked_at,
            "found": self.result,
            "wanted": self.wanted,
            "gate": self.gate,
        }


@dataclass(frozen=True)
class Norms:
    """What a stream of vectors looks like; add those of its batches."""

    rows: int = 0
    zero: int = 0
    not_finite: int = 0
    lowest: float = math.inf
    highest: float = 0.0
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / (self.rows - self.not_finite) if self.rows > self.not_finite else 0.0

    def __add__(self, other: "Norms") -> "Norms":
        return Norms(
            self.rows + other.rows,
            self.zero + other.zero,
            self.not_finite + other.not_finite,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.total + other.total,
        )


def recall(hits: Sequence[Hits], exact: Sequence[Hits], tolerance: float = 1e-6) -> float:
    """Mean recall@k over the queries. A hit as near as the k-th true neighbour counts: ties have no right order.

    ``tolerance`` is relative to that distance. Raises ValueError when there is nothing to compare.
    """
    shares = [_share(f.distances, e.distances, tolerance) for f, e in zip(hits, exact, strict=True) if len(e.ids)]
    if not shares:
        raise ValueError("recall of no queries")
    return float(np.mean(shares))


def overlap(hits: Sequence[Hits], other: Sequence[Hits]) -> float:
    """Mean share of ids that both name, of the longer list. Raises ValueError when there is nothing to compare."""
    shares = [
        len(set(f.ids) & set(o.ids)) / max(len(f.ids), len(o.ids))
        for f, o in zip(hits, other, strict=True)
        if f.ids or o.ids
    ]
    if not shares:
        raise ValueError("overlap of no queries")
    return float(np.mean(shares))


def row_cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each row of ``left`` with the same row of ``right``: float64[n]; two zero vectors agree, 1."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(same, 1.0, np.nan_to_num((a * b).sum(axis=1) / norms, nan=0.0))


def norms(batch: pa.RecordBatch) -> Norms:
    """Norms of a batch of records; rows without a vector are not counted."""
    matrix = vectors(batch)[np.asarray(batch.column("embedding").is_valid())]
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))  # no square of a float32 is beyond it
    finite = np.isfinite(lengths)
    bad, lengths = int((~finite).sum()), lengths[finite]
    if not len(lengths):
        return Norms(rows=len(matrix), not_finite=bad)
    zero = int((lengths == 0).sum())
    return Norms(len(matrix), zero, bad, float(lengths.min()), float(lengths.max()), float(lengths.sum()))


def _share(hits: np.ndarray, exact: np.ndarray, tolerance: float) -> float:
    worst = exact[-1] + tolerance * max(1.0, abs(exact[-1]))
    return min(int((hits <= worst).sum()), len(exact)) / len(exact)
