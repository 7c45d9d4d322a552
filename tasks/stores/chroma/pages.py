"""Records as Chroma hands them out, page by page, as the batches that travel."""

from collections.abc import Iterator, Sequence
from typing import Any

import chromadb
import numpy as np
import pyarrow as pa
from chromadb.base_types import SparseVector

from tasks.stores import canonical
from tasks.stores.chroma.client import classified
from tasks.stores.chroma.server import Server
from tasks.stores.interface import Metric, records, vector_column

PAGE_NUMBERS = 260_000
"""Vector components a page: as Python floats, which Chroma's client makes of them, they take 32 bytes each."""
PAGE_ROWS = 2_000

_INCLUDE: Any = ["embeddings", "documents", "metadatas", "uris"]


def fetch(opened: chromadb.Collection, ids: Sequence[str], place: str, server: Server | None) -> pa.RecordBatch:
    """The records of ``ids`` that exist; through ``server``, the shorter way, where there is one. ``place`` is for messages."""
    dimensions = opened._model.dimension
    rows = max(1, min(PAGE_ROWS, PAGE_NUMBERS // (dimensions or 1)))
    parts = (list(ids[at : at + rows]) for at in range(0, len(ids), rows))
    pages = [page for part in parts for page in _pages(opened, part, place, server, dimensions)]
    table = pa.Table.from_batches(pages, records(dimensions)).combine_chunks()
    return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], records(dimensions))


def from_chroma(distances: np.ndarray, metric: Metric) -> np.ndarray:
    """Chroma's distances as ``Hits`` has them: its l2 is squared, its ip is 1 − dot (docs.trychroma.com, "Distance")."""
    if metric == "l2":
        return np.sqrt(np.maximum(distances, 0))
    return distances - 1 if metric == "ip" else distances


def _pages(
    opened: chromadb.Collection, ids: list[str], place: str, server: Server | None, dimensions: int | None
) -> Iterator[pa.RecordBatch]:
    if server is None:
        yield _page(opened, ids, place, dimensions)
        return
    for page in server.pages(str(opened.id), ids):
        yield _batch(page.ids, page.documents, page.metadatas, page.uris, page.embeddings, dimensions)


def _page(opened: chromadb.Collection, ids: list[str], place: str, dimensions: int | None) -> pa.RecordBatch:
    try:
        with classified(place):
            got = opened.get(ids=ids, include=_INCLUDE)
    except ValueError:
        # The client cannot build its array when some records of a page lack a vector; alone, each can be read. A
        # record that cannot be read even alone is an error, never a record without a vector.
        if len(ids) == 1:
            raise
        half = len(ids) // 2
        halves = [_page(opened, part, place, dimensions) for part in (ids[:half], ids[half:])]
        return pa.Table.from_batches(halves).combine_chunks().to_batches()[0]
    metadatas = [_plain(m) for m in got["metadatas"] or [None] * len(got["ids"])]
    return _batch(got["ids"], got["documents"], metadatas, got["uris"], got.get("embeddings"), dimensions)


def _batch(
    ids: Any, documents: Any, metadatas: list[dict[str, Any] | None], uris: Any, embeddings: Any, dimensions: int | None
) -> pa.RecordBatch:
    schema = records(dimensions)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids, pa.string()),
            pa.array(documents, pa.string()),
            pa.array([canonical.dumps(m) for m in metadatas], pa.string()),
            pa.array(uris, pa.string()),
            _embeddings(embeddings, len(ids), schema.field("embedding").type),
        ],
        schema=schema,
    )


def _embeddings(embeddings: Any, count: int, kind: pa.DataType) -> pa.Array:
    if embeddings is None or len(embeddings) == 0:
        return pa.nulls(count, kind)
    if isinstance(embeddings, np.ndarray) and embeddings.ndim == 2:
        return vector_column(embeddings)
    return pa.array([None if v is None else np.asarray(v, np.float32) for v in embeddings], kind)


def _plain(metadata: Any) -> dict[str, Any] | None:
    if metadata is None:
        return None
    return {k: v.to_dict() if isinstance(v, SparseVector) else v for k, v in metadata.items()}
