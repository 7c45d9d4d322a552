"""The records of a collection: its points, with one of their vectors as the embedding."""

import time
from collections.abc import Callable, Collection as Names, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.base.errors import TransientError, UsageError
from tasks.base.words import agreeing, counted
from tasks.stores.interface import Collection, Evidence, Hits, Metric, records
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.configuration import info, of_info
from tasks.stores.qdrant.errors import TooMuchError
from tasks.stores.qdrant.indexing import deferred
from tasks.stores.qdrant.points import PAGE_NUMBERS, PAGE_POINTS, PointId, Reading, batch, fetched, path, point_id
from tasks.stores.qdrant.shapes import Shape, called
from tasks.stores.records import sampled, streamed

LISTED = 10_000
"""Ids that are asked for at once."""
SEARCHED = 100
"""Queries that are asked at once."""
HIDDEN_SECONDS, HIDDEN_PAUSE = 120.0, 0.5
"""How long deferred points are waited for, and between two looks at them."""
TOLERANCES = {"float32": 1e-6, "float16": 1e-3, "uint8": 1e-2, "turbo4": 0.1}
"""How far a score may lie from that of the float32 vectors, by what a vector is kept as."""


@dataclass(frozen=True)
class QdrantRecords:
    """One vector of a collection, open to be read. Satisfies Records."""

    qdrant: Qdrant
    name: str
    """Of the collection, or of an alias."""
    shape: Shape
    reading: Reading
    page: int
    """Points a page, as their vectors allow."""

    @property
    def metric(self) -> Metric:
        return self.shape.metric

    @property
    def distance_tolerance(self) -> float:
        return TOLERANCES.get(self.shape.datatype, TOLERANCES["float32"])

    def describe(self) -> Collection:
        """As they are now; ``metadata`` is {"vector": name, "configuration": all of the collection's}."""
        configuration = of_info(info(self.qdrant, self.name))
        vectors = configuration["params"]["vectors"]
        own = (vectors if "size" in vectors else vectors[self.shape.name]).get("hnsw_config") or {}
        hnsw = {**configuration.get("hnsw_config", {}), **own}
        return Collection(
            self.name,
            self.name,
            self.count(),
            self.shape.size,
            self.metric,
            m=hnsw["m"],
            ef_construction=hnsw["ef_construct"],
            ef_search=hnsw["ef_construct"],  # what Qdrant takes where a query says nothing
            metadata={"vector": self.shape.name, "configuration": configuration},
        )

    def evidence(self) -> Evidence:
        return Evidence(self.metric, says={"its configuration": str(self.shape.distance)})

    def count(self) -> int:
        """With those points that are hidden from reads until they are indexed."""
        with self.qdrant.refused():
            visible = self.qdrant.client.count(self.name, exact=True).count
        return visible + self.hidden()

    def hidden(self) -> int:
        """Points that are deferred: kept, and not read until they are indexed."""
        return deferred(info(self.qdrant, self.name)) if self.qdrant.rest else 0

    def size(self) -> None:
        return None

    def ids(self) -> pa.Array:
        """Every id. Points that are deferred are waited for; raises TransientError where that takes too long."""
        end = time.monotonic() + HIDDEN_SECONDS
        while hidden := self.hidden():
            if time.monotonic() > end:
                raise TransientError(
                    f"{counted(hidden, 'point')} of {self.name} at {self.qdrant.place} {agreeing(hidden, 'are')} hidden "
                    "until indexed (prevent_unoptimized), so the listing would lack "
                    f"{agreeing(hidden, 'them')}: wait until the collection is green"
                )
            time.sleep(HIDDEN_PAUSE)
        return pa.concat_arrays([pa.array([str(i) for i in page], pa.string()) for page in self._listed()])

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        return streamed(self, content)

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> pa.RecordBatch:
        return self._fetched(ids, [self.shape.name, *(self.reading.others if content else ())], content)

    def contents(self, ids: Sequence[str]) -> pa.RecordBatch:
        """As ``fetch``, with null for every embedding: those are most of what a point takes to be sent."""
        return self._fetched(ids, self.reading.others, True)

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        return sampled(self, rows, content)

    def labelled(self, rows: int, each: int) -> None:
        return None

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        """Raises UsageError for queries of another length than the vectors."""
        if queries.shape[1] != self.shape.size:
            raise UsageError(
                f"a query of {counted(queries.shape[1], 'dimension')} cannot be compared with {self.name}, whose "
                f"{called(self.shape.name)} has {self.shape.size}: was it made by another model?"
            )
        parts = (queries[at : at + SEARCHED] for at in range(0, len(queries), SEARCHED))
        return [hits for part in parts for hits in self._search(part, k, effort)]

    def turns(self) -> AbstractContextManager[Callable[[], AbstractContextManager[Any]]]:
        return nullcontext(nullcontext)

    def _fetched(self, ids: Sequence[str], names: Names[str], content: bool) -> pa.RecordBatch:
        wanted = list[PointId]()
        for text in dict.fromkeys(ids):
            with suppress(ValueError):  # what is the id of no point is there no more than another that is absent
                wanted.append(point_id(text))
        pages = fetched(self.qdrant, self.name, wanted, content, names, self.page)
        schema = records(self.shape.size, others=bool(self.reading.others))
        table = pa.Table.from_batches([batch(page, self.reading, content) for page in pages], schema).combine_chunks()
        return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema)

    def _listed(self) -> Iterator[list[PointId]]:
        """Pages of ids. They come in the order of ids, each from where the last one ended: what nobody touches is never missed."""
        limit, offset = LISTED, None  # type: int, PointId | None
        while True:
            try:
                page, offset = self._scroll(limit, offset)
            except TooMuchError:
                if limit == 1:
                    raise
                limit //= 2
                continue
            yield page
            if offset is None:
                return

    def _scroll(self, limit: int, offset: PointId | None) -> tuple[list[PointId], PointId | None]:
        if self.qdrant.rest:
            body = {"limit": limit, "offset": offset, "with_payload": False, "with_vector": False}
            result = self.qdrant.rest.points(path(self.name, "points", "scroll"), body)
            return [point["id"] for point in result["points"]], result.get("next_page_offset")
        with self.qdrant.refused():
            points, after = self.qdrant.client.scroll(
                self.name, limit=limit, offset=offset, with_payload=False, with_vectors=False
            )
        return [point.id for point in points], after  # type: ignore[misc, return-value]

    def _search(self, queries: np.ndarray, k: int, effort: int | None) -> list[Hits]:
        if self.qdrant.rest:
            return self._asked(queries, k, effort)
        answers = []
        for query in queries:
            with self.qdrant.refused():
                points = self.qdrant.client.query_points(
                    self.name, query.tolist(), using=self.shape.name or None, limit=k, with_payload=False
                ).points
            answers.append(self._hits([p.id for p in points], [p.score for p in points]))
        return answers

    def _asked(self, queries: np.ndarray, k: int, effort: int | None) -> list[Hits]:
        assert self.qdrant.rest
        exact, wanted = effort == 0, effort or None
        # rescore: scores are those of the vectors themselves, where an index compares shortened ones
        parameters = {"hnsw_ef": wanted, "exact": exact, "quantization": {"rescore": True}}
        one = {"limit": k, "params": parameters, "with_payload": False, "with_vector": False}
        if self.shape.name:
            one["using"] = self.shape.name
        searches = [{**one, "query": query} for query in np.ascontiguousarray(queries, np.float32)]
        answers = self.qdrant.rest.send("POST", path(self.name, "points", "query", "batch"), {"searches": searches})
        return [self._hits([p["id"] for p in a["points"]], [p["score"] for p in a["points"]]) for a in answers]

    def _hits(self, ids: list[Any], scores: list[float]) -> Hits:
        """Qdrant's scores are similarities, save those of Euclid, which are distances."""
        far = np.asarray(scores, np.float64)
        distances = {"cosine": 1 - far, "ip": -far, "l2": far}[self.metric]
        return Hits([str(i) for i in ids], distances)


def opened(qdrant: Qdrant, name: str, shape: Shape, reading: Reading, numbers: int) -> QdrantRecords:
    """The records of a collection whose points have about ``numbers`` components, of all vectors that are read."""
    page = max(1, min(PAGE_POINTS, PAGE_NUMBERS // max(numbers, 1)))
    return QdrantRecords(qdrant, name, shape, reading, page)
