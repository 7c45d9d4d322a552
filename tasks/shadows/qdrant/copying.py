"""A copy of a collection, vectors and all, which is what a rollback goes back to."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.runs import checkpoints
from tasks.runs.run import Run
from tasks.shadows.qdrant.points import PAGE, alike, beside, close, point_ids
from tasks.stores.interface import vectors
from tasks.stores.qdrant import writing
from tasks.stores.qdrant.points import written
from tasks.stores.qdrant.records import QdrantRecords


@dataclass(frozen=True)
class Copy:
    """A collection, and another of the same configuration."""

    run: Run
    source: QdrantRecords
    there: QdrantRecords


def bring(copy: Copy) -> int:
    """One pass, which reads every point of both and brings the copy in line; how many points were not."""
    ids, differing = copy.source.ids(), 0
    for at in range(0, len(ids), PAGE):
        with copy.run.connection() as connection:
            checkpoints.check_stop(connection, copy.run.run_id)
        differing += _page(copy, ids[at : at + PAGE].to_pylist())
    there = copy.there.ids()
    gone = there.filter(pc.invert(pc.is_in(there, ids))).to_pylist()
    back = set(copy.source.fetch(gone, content=False)["id"].to_pylist()) if gone else set()
    gone = [name for name in gone if name not in back]
    writing.delete(copy.there.qdrant, copy.there.name, point_ids(gone))
    return differing + len(gone) + len(back)


def _page(copy: Copy, ids: list[str]) -> int:
    rows, there = copy.source.fetch(ids), copy.there.fetch(ids)
    copies = {point.name: point for point in _points(there)}
    wrong = [point.name for point in _points(rows) if not point.is_like(copies.get(point.name))]
    if wrong:
        some = rows.filter(pc.is_in(rows["id"], pa.array(wrong, pa.string())))
        writing.upsert(copy.there.qdrant, copy.there.name, written(some, copy.there.shape.name))
    return len(wrong)


@dataclass(frozen=True)
class _Point:
    name: str
    payload: str | None
    vector: np.ndarray | None
    others: bytes | None

    def is_like(self, other: "_Point | None") -> bool:
        """Whether the other one is the same, but for the rounding of its vectors."""
        if other is None or self.payload != other.payload or (self.vector is None) != (other.vector is None):
            return False
        return (self.vector is None or close(self.vector, other.vector)) and alike(self.others, other.others)


def _points(rows: pa.RecordBatch) -> Iterator[_Point]:
    present, matrix = rows["embedding"].is_valid().to_pylist(), vectors(rows)
    columns = zip(rows["id"].to_pylist(), rows["metadata"].to_pylist(), beside(rows), strict=True)
    for at, (name, payload, others) in enumerate(columns):
        yield _Point(name, payload, matrix[at] if present[at] else None, others)
