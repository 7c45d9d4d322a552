"""An in-memory store: a real, exact implementation that tests migrate from and to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.base.errors import UsageError
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Collection, Connect, Evidence, Hits, Metric, Selected, records, vectors
from tasks.stores.records import sampled, streamed


@dataclass(frozen=True)
class MemoryStore:
    """Collections as dictionaries. Satisfies Source and Sink."""

    described: dict[str, Collection] = field(default_factory=dict)
    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    copied_bytes = 0

    def version(self) -> dict[str, str]:
        return {}

    def names(self) -> list[str]:
        return sorted(self.described)

    def records(self, name: str) -> "MemoryRecords":
        if name not in self.described:
            raise UsageError(f"there is no collection {name!r}; available: {', '.join(self.described) or 'none'}")
        return MemoryRecords(self.described[name], self.rows[name])

    def create(self, collection: Collection) -> None:
        if collection.name in self.described:
            raise UsageError(f"collection {collection.name!r} already exists")
        self.described[collection.name] = collection
        self.rows[collection.name] = {}

    def write(self, name: str, records: pa.RecordBatch) -> None:
        vectors(records)  # refuses what is no batch of records
        self.records(name).rows.update({row["id"]: row for row in records.to_pylist()})

    def delete(self, name: str, ids: Sequence[str]) -> None:
        for i in ids:
            self.records(name).rows.pop(i, None)


@dataclass(frozen=True)
class MemoryRecords:
    """One collection, open to be read. Satisfies Records."""

    described: Collection
    rows: dict[str, dict[str, Any]]

    distance_tolerance = 1e-6

    @property
    def metric(self) -> Metric:
        return self.described.metric

    def describe(self) -> Collection:
        return replace(self.described, count=len(self.rows))

    def evidence(self) -> Evidence:
        return Evidence(self.metric)

    def count(self) -> int:
        return len(self.rows)

    def size(self) -> int:
        return sum(batch.nbytes for batch in self.stream())

    def ids(self) -> pa.Array:
        return pa.array(list(self.rows), pa.string())

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        return streamed(self, content)

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> pa.RecordBatch:
        rows = [self.rows[i] for i in dict.fromkeys(ids) if i in self.rows]
        return pa.RecordBatch.from_pylist(rows, records(self.described.dimensions))

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        return sampled(self, rows, content)

    def labelled(self, rows: int, each: int) -> None:
        return None

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        return exact_search(queries, self.stream(content=False), self.metric, k)

    def turns(self) -> AbstractContextManager[Callable[[], AbstractContextManager[Any]]]:
        return nullcontext(nullcontext)


def source(
    options: dict[str, Any], selected: Sequence[Selected] | None, fresh: bool, connect: Connect | None
) -> MemoryStore:
    """The store that ``name`` names."""
    return named(**options)


_NAMED: dict[str, MemoryStore] = {}
"""Process-wide: a plan names a store, and finds it again where it was filled."""


def named(name: str) -> MemoryStore:
    """The store of that name in this process, made when it is new."""
    return _NAMED.setdefault(name, MemoryStore())
