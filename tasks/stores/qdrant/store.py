"""Qdrant, as a server or a directory of local mode, to read from and (for restore) to write to."""

from collections.abc import Collection as Names, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from tasks.base.errors import UsageError
from tasks.base.words import counted, listed
from tasks.stores.interface import Collection, Connect, Metric, Selected
from tasks.stores.postgres.lookup import Lookup
from tasks.stores.qdrant import client as clients, configuration, records, shapes, writing
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.errors import AbsentError
from tasks.stores.qdrant.points import (
    Documents,
    PointId,
    Reading,
    no_documents,
    payload_texts,
    payload_value,
    point_id,
    written,
)
from tasks.stores.qdrant.records import QdrantRecords
from tasks.stores.qdrant.shapes import UNNAMED

SPARSE = 256
"""Components that a sparse vector, or vectors that a multi-vector, is taken to have where pages are cut."""


@dataclass(frozen=True)
class QdrantStore:
    """The collections of a server or directory. Satisfies Source and Sink."""

    qdrant: Qdrant
    vector: str | None = UNNAMED
    """The name of the vector that is read as the embedding, and written; None: the only dense one that there is."""
    documents: Documents = no_documents
    others: Names[str] | None = None
    """The vectors that travel beside it; None: all that the collection has when it is opened."""
    into: str | None = None
    """The one collection that is written to, whatever it is called."""
    selected: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Collection → {"vector", "others"}, where the plan has decided that."""
    made: dict[str, str] = field(default_factory=dict)
    """The collections that were made here, and the vector that is the embedding of each."""

    copied_bytes = 0

    def version(self) -> dict[str, str]:
        if self.qdrant.server.local:
            return {"qdrant-client, local mode": self.qdrant.server.version}
        return {"qdrant": self.qdrant.server.version}

    def names(self) -> list[str]:
        return self.qdrant.collections()

    def records(self, name: str) -> QdrantRecords:
        """Opens a collection, or what an alias points to. Raises UsageError where there is none, or no such dense vector."""
        return self._records(self.into or name)

    def create(self, collection: Collection) -> None:
        """Makes it with the configuration that its metadata have, else of its size and metric alone. Raises UsageError where there
        is one of that name."""
        name, vector = self.into or collection.name, collection.metadata.get("vector", self.vector) or UNNAMED
        if self.qdrant.rest and configuration.exists(self.qdrant, name):
            other = f"{self.qdrant.place}/collections/NAME"
            raise UsageError(f"{self.qdrant.place} has a collection {name} already: write into another, --into {other}")
        configuration.create(self.qdrant, name, collection.metadata.get("configuration") or _plain(collection, vector))
        self.made[name] = vector

    def write(self, name: str, records: pa.RecordBatch) -> None:
        """Points as they are in ``records``: a payload is a record's metadata, in which its document stands too. Raises UsageError
        for an id that is none of a point."""
        shape = self._records(self.into or name).shape
        _point_ids(records.column("id").to_pylist())
        writing.upsert(self.qdrant, self.into or name, written(records, shape.name))

    def delete(self, name: str, ids: Sequence[str]) -> None:
        self._records(self.into or name)
        writing.delete(self.qdrant, self.into or name, _point_ids(ids))

    def _records(self, name: str) -> QdrantRecords:
        try:
            every = shapes.shapes(configuration.read(self.qdrant, name))
        except AbsentError as error:
            there = listed(self.names()) or "none"
            raise UsageError(f"there is no collection {name!r} at {self.qdrant.place}; available: {there}") from error
        kept = self.selected.get(name, {})
        shape = shapes.chosen(name, every, self.made.get(name, kept.get("vector", self.vector)))
        named = kept.get("others", self.others)
        others = tuple(n for n in sorted(every) if n != shape.name and (named is None or n in named))
        numbers = sum(_numbers(every[n]) for n in (shape.name, *others))
        return records.opened(
            self.qdrant, name, shape, Reading(shape.name, shape.size or 0, self.documents, others), numbers
        )


def source(
    options: dict[str, Any], selected: Sequence[Selected] | None, fresh: bool, connect: Connect | None
) -> QdrantStore:
    """The server or directory of a plan: {"url" | "path", "api_key", "vector", "document", "lookup", "others"}; ``api_key`` is the
    name of a secret, ``document`` a payload key, ``lookup`` what a Lookup is made of. Raises UsageError when there is nothing
    there."""
    qdrant = clients.opened(**{name: options.get(name) for name in ("url", "path", "api_key")})
    rows = {one.name: one.rows for one in selected or () if one.rows is not None}
    return QdrantStore(qdrant, options.get("vector"), _documents(options), options.get("others"), selected=rows)


def create_directory(into: str) -> QdrantStore:
    """Where a snapshot is written back: a new directory of local mode, a server by its URL, or one collection of a server by
    URL/collections/NAME, which need not be called as it was. The key of a server is the secret called QDRANT_API_KEY, if there
    is one. Raises UsageError where a directory holds collections, or a server cannot be used."""
    if "://" not in into:
        return QdrantStore(clients.created(into))
    parts = urlsplit(into)
    prefix, _, name = parts.path.partition("/collections/")
    qdrant = clients.opened(url=f"{parts.scheme}://{parts.netloc}{prefix}", api_key=clients.KEY)
    return QdrantStore(qdrant, into=unquote(name.strip("/")) or None)


def opened_by(into: str) -> str:
    """What opens what ``create_directory`` makes; nothing has to be said of a server."""
    return "" if "://" in into else f"open it by QdrantClient(path={into!r}), in one process at a time"


def _documents(options: Mapping[str, Any]) -> Documents:
    if lookup := options.get("lookup"):
        table = Lookup(**lookup)
        return lambda payloads: table.documents([payload_value(payload, table.key) for payload in payloads])
    return payload_texts(options["document"]) if options.get("document") else no_documents


def _point_ids(texts: Sequence[str]) -> list[PointId]:
    ids, wrong = list[PointId](), list[str]()
    for text in texts:
        try:
            ids.append(point_id(text))
        except ValueError:
            wrong.append(text)
    if wrong:
        raise UsageError(
            f"{counted(len(wrong), 'id')} cannot be a point's in Qdrant, which takes integers and UUIDs; the first: {wrong[0][:40]!r}"
        )
    return ids


def _plain(collection: Collection, vector: str) -> configuration.Configuration:
    metric: Metric = collection.metric
    params = {"size": collection.dimensions, "distance": shapes.DISTANCES[metric]}
    hnsw = {"m": collection.m, "ef_construct": collection.ef_construction}
    return {"params": {"vectors": {vector: params} if vector else params}, "hnsw_config": hnsw}


def _numbers(shape: shapes.Shape) -> int:
    return {"dense": 1, "multi": SPARSE, "sparse": 0}[shape.kind] * (shape.size or 0) or SPARSE
