"""ChromaDB, as a directory or a server, to read from and (for restore) to write to."""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import chromadb
import numpy as np
import pyarrow as pa
from chromadb.api import ClientAPI
from chromadb.base_types import SparseVector
from chromadb.errors import NotFoundError

from tasks.base import settings
from tasks.base.errors import FatalError, UsageError
from tasks.base.words import counted
from tasks.stores import canonical
from tasks.stores.chroma import client as chroma_client, configuration, private_copy, server as chroma_server
from tasks.stores.chroma.client import classified
from tasks.stores.chroma.private_copy import Copy, Wanted
from tasks.stores.chroma.records import ChromaRecords
from tasks.stores.chroma.segment import DATABASE
from tasks.stores.chroma.server import Server
from tasks.stores.interface import Collection, Connect, Metric, Selected, vectors

LISTING = 100
"""Collections a page of the listing."""

_COPIED = threading.Lock()
"""One client a copy: it is closed when the copy is removed."""


@dataclass(frozen=True)
class ChromaStore:
    """One tenant and database of a Chroma directory or server. Satisfies Source and Sink."""

    client: ClientAPI
    place: str
    """The directory or URL, for messages."""
    server: Server | None = None
    """Where it is a server: the shorter way to its records."""
    copy: Copy | None = None
    """Where it is a directory that is read: the private copy of it that ``client`` has opened."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Metrics that are known better than by what is stored."""

    @property
    def copied_bytes(self) -> int:
        return self.copy.bytes if self.copy else 0

    def version(self) -> dict[str, str]:
        """Of a server what its API says, which for all of Chroma 1 has been 1.0.0; a directory does not say what wrote it."""
        reader = {"read by chromadb": chromadb.__version__}
        if not self.server:
            return reader
        with classified(self.place):
            return {"chroma server API": self.client.get_version(), **reader}

    def names(self) -> list[str]:
        if self.server:
            return self.server.names()
        with classified(self.place):
            names: list[str] = []
            while page := self.client.list_collections(limit=LISTING, offset=len(names)):
                names += [c.name for c in page]
        return sorted(names)

    def records(self, name: str) -> ChromaRecords:
        opened, known = self._open(name), self.metrics.get(name)
        return ChromaRecords(opened, partial(self._open, name), self.place, self.server, self.copy, known)

    def create(self, collection: Collection) -> None:
        hnsw: Any = {
            "space": collection.metric,
            "max_neighbors": collection.m,
            "ef_construction": collection.ef_construction,
            "ef_search": collection.ef_search,
        }
        metadata = configuration.with_settings(collection.metadata, hnsw)
        with classified(self.place):
            self.client.create_collection(
                collection.name,
                embedding_function=None,
                configuration={"hnsw": hnsw},
                metadata=metadata or None,
            )

    def write(self, name: str, records: pa.RecordBatch) -> None:
        opened = self._open(name)
        present = np.asarray(records.column("embedding").is_valid())
        if not present.all():
            raise UsageError(
                f"{counted(int((~present).sum()), 'record', 'have')} no vector, and Chroma cannot store such records"
            )
        rows = records.drop_columns(["embedding"]).to_pydict()
        matrix, limit = vectors(records), self.client.get_max_batch_size()
        with classified(self.place):
            for at in range(0, records.num_rows, limit):
                part = slice(at, at + limit)
                # upsert alone would merge: an earlier record's document, uri and metadata keys would stay.
                if replaced := opened.get(ids=rows["id"][part], include=[])["ids"]:
                    opened.delete(ids=replaced)
                opened.upsert(
                    ids=rows["id"][part],
                    embeddings=matrix[part],
                    documents=rows["document"][part],
                    metadatas=[_metadata(text) for text in rows["metadata"][part]],
                    uris=rows["uri"][part],
                )

    def delete(self, name: str, ids: Sequence[str]) -> None:
        opened, limit = self._open(name), self.client.get_max_batch_size()
        with classified(self.place):
            for at in range(0, len(ids), limit):
                opened.delete(ids=list(ids[at : at + limit]))

    def _open(self, name: str) -> chromadb.Collection:
        try:
            with classified(self.place):
                # None keeps Chroma from loading the collection's embedding model, which nothing here needs.
                return self.client.get_collection(name, embedding_function=None)
        except FatalError as error:
            if not isinstance(error.__cause__, NotFoundError):
                raise
            raise UsageError(
                f"there is no collection {name!r} in {self.place}; available: {', '.join(self.names()) or 'none'}"
            ) from error


def connect(
    *,
    path: str | None = None,
    host: str | None = None,
    port: int = 8000,
    ssl: bool = False,
    tenant: str = "default_tenant",
    database: str = "default_database",
    token: str | None = None,
) -> ChromaStore:
    """Opens a directory or a server, to be written to: a directory of an older version is migrated where it lies. What is
    only read is opened by ``read``. ``token`` is the secret itself. Raises UsageError when there is nothing there."""
    if path is not None:
        place = chroma_client.directory(path)
        return ChromaStore(chroma_client.persistent(place, place, tenant, database), place)
    place = f"http{'s' if ssl else ''}://{host}:{port}"
    headers = {"Authorization": f"Bearer {token}", "x-chroma-token": token} if token else None
    client = chroma_client.http(place, host, port, ssl, headers, tenant, database)
    return ChromaStore(client, place, chroma_server.connect(place, tenant, database, headers))


def source(
    options: dict[str, Any], selected: Sequence[Selected] | None, fresh: bool, connect: Connect | None
) -> ChromaStore:
    """The directory or server of a plan; ``token`` is the name of a secret. Raises UsageError when there is nothing there."""
    if name := options.pop("token", None):
        options["token"] = settings.secret(name, "chroma.token")
        if options["token"] is None:
            raise UsageError(f"chroma.token: neither an environment variable nor a Prefect Secret is called {name}")
    names = None if selected is None else [s.name for s in selected]
    metrics = {s.name: s.metric for s in selected or () if s.metric}
    return replace(read(**options, home=settings.home(), collections=names, fresh=fresh), metrics=metrics)


def read(
    *,
    path: str | None = None,
    tenant: str = "default_tenant",
    database: str = "default_database",
    home: str,
    collections: Sequence[str] | None = None,
    fresh: bool = True,
    **server: Any,
) -> ChromaStore:
    """Opens a server, or a private copy of a directory with ``collections`` (None: all), which stays as it is while it is
    read. ``fresh``: as the directory is now; else as it was when this process last looked.

    Raises UsageError when there is nothing there, or no room for the copy under ``home``.
    """
    if path is None:
        return connect(tenant=tenant, database=database, **server)
    place = chroma_client.directory(path)
    named = None if collections is None else frozenset(collections)
    copy = private_copy.copy_of(Wanted(place, tenant, database, named), home, fresh)
    with _COPIED:
        if (tenant, database) not in copy.clients:
            copy.clients[tenant, database] = chroma_client.persistent(place, copy.folder, tenant, database)
    return ChromaStore(copy.clients[tenant, database], place, copy=copy)


def create_directory(path: str) -> ChromaStore:
    """An empty Chroma directory at ``path``, which must not hold one yet."""
    if os.path.exists(os.path.join(path, DATABASE)):
        raise UsageError(f"{path} already holds a Chroma database; restore into a new directory")
    os.makedirs(path, exist_ok=True)
    return ChromaStore(chromadb.PersistentClient(path=path, settings=chroma_client.quiet()), os.path.abspath(path))


def opened_by(into: str) -> str:
    """Which versions of Chroma open what is written there. Tried with directories of chromadb 1.5.9."""
    return (
        f"the directory is in the format of Chroma {chromadb.__version__}, which 1.3.7 and 1.4.1 open "
        "too; for 0.4, 0.5, 0.6, 1.0 and 1.1, which do not, use --format jsonl"
    )


def _metadata(text: str | None) -> Any:
    """Metadata for Chroma: it takes no empty one, and gives one back for a record that has only a uri."""
    return {
        key: SparseVector.from_dict(value) if isinstance(value, dict) else value
        for key, value in (canonical.loads(text) or {}).items()
    } or None
