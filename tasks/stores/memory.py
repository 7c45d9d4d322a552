"""An in-memory store: a real, exact implementation that tests migrate from and to."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.base.errors import UsageError
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Collection, Evidence, Hits, Metric, Selected, records, vectors


@dataclass(frozen=True)
class MemoryStore:
    """Collections as dictionaries. Satisfies Source and Sink."""

    described: dict[str, Collection] = field(default_factory=dict)
    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    consistent_snapshot = False
    copied_bytes = 0

    def version(self) -> dict[str, str]:
        return {}

    def collections(self) -> list[Collection]:
        return [self.collection(name) for name in sorted(self.described)]

    def collection(self, name: str) -> Collection:
        if name not in self.described:
            raise UsageError(f"there is no collection {name!r}; available: {', '.join(self.described) or 'none'}")
        return replace(self.described[name], count=len(self.rows[name]))

    def evidence(self, name: str) -> Evidence:
        return Evidence(self.collection(name).metric)

    def ids(self, name: str) -> pa.Array:
        return pa.array(list(self.rows[self.collection(name).name]), pa.string())

    def fetch(self, name: str, ids: Sequence[str]) -> pa.RecordBatch:
        kept = self.rows[self.collection(name).name]
        rows = [kept[i] for i in dict.fromkeys(ids) if i in kept]
        return pa.RecordBatch.from_pylist(rows, records(self.described[name].dimensions))

    def search(self, name: str, queries: np.ndarray, k: int) -> list[Hits]:
        batch = self.fetch(name, self.ids(name).to_pylist())
        return exact_search(queries, [batch], self.described[name].metric, k)

    def create(self, collection: Collection) -> None:
        if collection.name in self.described:
            raise UsageError(f"collection {collection.name!r} already exists")
        self.described[collection.name] = collection
        self.rows[collection.name] = {}

    def write(self, name: str, records: pa.RecordBatch) -> None:
        vectors(records)  # refuses what is no batch of records
        self.rows[self.collection(name).name].update({row["id"]: row for row in records.to_pylist()})

    def delete(self, name: str, ids: Sequence[str]) -> None:
        for i in ids:
            self.rows[self.collection(name).name].pop(i, None)


@dataclass(frozen=True)
class MemoryRecords:
    """One collection, open to be read. Satisfies Records."""

    store: MemoryStore
    name: str

    distance_tolerance = 1e-6

    @property
    def metric(self) -> Metric:
        return self.store.described[self.name].metric

    def count(self) -> int:
        return len(self.store.rows[self.name])

    def size(self) -> int:
        return sum(batch.nbytes for batch in self.stream())

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        yield from self.fetch(list(self.store.rows[self.name]))

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> Iterator[pa.RecordBatch]:
        yield self.store.fetch(self.name, ids)

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        there = [name for name, row in self.store.rows[self.name].items() if row["embedding"] is not None]
        yield from self.fetch(random.sample(there, min(rows, len(there))))

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        return self.store.search(self.name, queries, k)

    def turns(self) -> AbstractContextManager[Callable[[], AbstractContextManager[Any]]]:
        return nullcontext(nullcontext)


def source(options: dict[str, Any], selected: Sequence[Selected] | None, fresh: bool, url: str) -> MemoryStore:
    """The store that ``name`` names."""
    return named(**options)


_NAMED: dict[str, MemoryStore] = {}


def named(name: str) -> MemoryStore:
    """The store of that name in this process, made when it is new."""
    return _NAMED.setdefault(name, MemoryStore())
