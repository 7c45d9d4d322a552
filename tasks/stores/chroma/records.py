"""The records of one collection of Chroma, open to be read."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import chromadb
import numpy as np
import pyarrow as pa

from tasks.base.errors import FatalError
from tasks.base.words import counted
from tasks.stores.chroma import configuration, pages
from tasks.stores.chroma.client import classified
from tasks.stores.chroma.configuration import Stored
from tasks.stores.chroma.private_copy import Copy
from tasks.stores.chroma.segment import DATABASE
from tasks.stores.chroma.server import Server
from tasks.stores.interface import Collection, Evidence, Hits, Metric, vectors
from tasks.stores.records import sampled, streamed

LOOKED_AT, NEIGHBOURS = 50, 5
"""Records that a query for the metric is made of, and neighbours of each query."""


@dataclass(frozen=True)
class ChromaRecords:
    """Satisfies Records."""

    opened: chromadb.Collection
    open: Callable[[], chromadb.Collection]
    """Opens it anew."""
    place: str
    """The directory or URL, for messages."""
    server: Server | None
    copy: Copy | None
    known: Metric | None
    """The metric, where it is known better than by what is stored."""

    distance_tolerance = 1e-4

    @property
    def metric(self) -> Metric:
        return self.known or self._stored().metric

    def describe(self) -> Collection:
        opened = self._filled()
        with classified(self.place):
            index = self._stored()
            return Collection(
                name=opened.name,
                identity=str(opened.id),
                count=opened.count(),
                dimensions=opened._model.dimension,  # the only place where Chroma keeps it
                metric=self.known or index.metric,
                m=index.m,
                ef_construction=index.ef_construction,
                ef_search=index.ef_search,
                metadata=dict(opened.metadata or {}),
            )

    def evidence(self) -> Evidence:
        says = self._stored().says
        if self.server:
            ids = self.server.some_ids(str(self.opened.id), LOOKED_AT)
        else:
            with classified(self.place):
                ids = self.opened.get(limit=LOOKED_AT, include=[])["ids"]
        records = self.fetch(ids)
        queries = configuration.probes(vectors(records)[np.asarray(records.column("embedding").is_valid())])
        if not len(queries):
            return Evidence(None, 0, says)
        with classified(self.place):
            answer: Any = self.opened.query(
                query_embeddings=queries, n_results=min(NEIGHBOURS, len(ids)), include=["distances", "embeddings"]
            )
        pairs = [np.asarray(e, np.float32).reshape(-1, queries.shape[1]) for e in answer["embeddings"]]
        shown, distances = configuration.explained(queries, pairs, answer["distances"])
        return Evidence(shown, distances, says)

    def count(self) -> int:
        with classified(self.place):
            return self.opened.count()

    def size(self) -> None:
        """Chroma does not tell."""

    def ids(self) -> pa.Array:
        if self.server:
            return pa.array(self.server.ids(str(self.opened.id), self.opened.name), pa.string())
        with classified(self.place):
            ids, count = self.opened.get(include=[])["ids"], self.opened.count()
        if self.copy and len(ids) != count:  # else somebody may write meanwhile
            raise FatalError(
                f"{self.opened.name!r} in {self.place} lists {counted(len(ids), 'record')} but counts {count:,}"
            )
        return pa.array(ids, pa.string())

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        return streamed(self, content)

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> pa.RecordBatch:
        return pages.fetch(self._filled(), ids, self.place, self.server)

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        return sampled(self, rows, content)

    def labelled(self, rows: int, each: int) -> None:
        return None

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        metric = self.metric
        with classified(self.place):
            answer = self.opened.query(query_embeddings=queries, n_results=k, include=["distances"])
        distances = answer["distances"] or []
        return [
            Hits(list(i), pages.from_chroma(np.asarray(d, float), metric))
            for i, d in zip(answer["ids"], distances, strict=True)
        ]

    def turns(self) -> AbstractContextManager[Callable[[], AbstractContextManager[Any]]]:
        return nullcontext(nullcontext)

    def _filled(self) -> chromadb.Collection:
        """The collection with its dimensions, which one that was empty when it was opened did not know."""
        return self.opened if self.opened._model.dimension else self.open()

    def _stored(self) -> Stored:
        # As JSON: `configuration` would build the collection's embedding function, which wants its model or key.
        name, settings = self.opened.name, self.opened.configuration_json
        if "://" in self.place:
            return configuration.stored(name, settings, self.opened.metadata or {}, configuration.METADATA)
        database = os.path.join(self.copy.folder if self.copy else self.place, DATABASE)
        segment = configuration.of_segment(database, str(self.opened.id))
        return configuration.stored(name, settings, segment, configuration.SEGMENT)
