"""What points say, as hashes, and which of them lack a vector."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from qdrant_client import models

from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.errors import TooMuchError
from tasks.stores.qdrant.points import path, payload_value, point_id
from tasks.stores.qdrant.records import QdrantRecords

PAGE = 1_000
"""Points that are compared at once."""
LISTED = 500
"""Points a page of a scroll."""
NO_DOCUMENT = b"none"
"""Stands for the hash of no document, which '' is not."""


@dataclass(frozen=True)
class Digest:
    """What one point says, as hashes."""

    document: bytes
    """Hash of what the model is given."""
    payload: bytes
    """Hash of the payload."""
    others: bytes | None
    """Hash of the vectors beside the one that is read; None where there are none."""


def contents(records: QdrantRecords, ids: Sequence[str]) -> pa.Table:
    """The points of ``ids`` that exist, as records without their embedding, which is not read."""
    return pa.Table.from_batches([records.contents(ids)])


def digests(rows: pa.Table | pa.RecordBatch) -> dict[str, Digest]:
    """By id."""
    names, documents, payloads = (rows.column(name).to_pylist() for name in ("id", "document", "metadata"))
    return {
        name: Digest(
            NO_DOCUMENT if document is None else sha256(document.encode()).digest(),
            sha256((payload or "{}").encode()).digest(),
            sha256(others).digest() if others else None,
        )
        for name, document, payload, others in zip(names, documents, payloads, beside(rows), strict=True)
    }


def beside(rows: pa.Table | pa.RecordBatch) -> list[bytes | None]:
    """Of each row the vectors beside the one that is read, as they travel."""
    others: list[bytes | None] = (
        rows.column("others").to_pylist() if "others" in rows.schema.names else [None] * rows.num_rows
    )
    return others


def alike(one: bytes | None, other: bytes | None) -> bool:
    """Whether vectors are the same but for rounding: local mode divides a cosine's by its length once more."""
    if one == other:
        return True
    if one is None or other is None:
        return False
    a, b = orjson.loads(one), orjson.loads(other)
    return bool(a.keys() == b.keys() and all(_close(a[name], b[name]) for name in a))


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return bool(one["indices"] == other["indices"]) and close(one["values"], other["values"])
    return close(one, other)


def close(one: Any, other: Any) -> bool:
    """Whether float32 arrays of one shape differ by rounding alone."""
    a, b = np.asarray(one, np.float32), np.asarray(other, np.float32)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-6, atol=1e-6))


def point_ids(ids: Iterable[str]) -> list[int | str]:
    """As Qdrant has them; what is the id of no point is left out."""
    wanted = list[int | str]()
    for text in ids:
        with suppress(ValueError):
            wanted.append(point_id(text))
    return wanted


def lacking(qdrant: Qdrant, collection: str, vector: str, ids: Sequence[str]) -> set[str]:
    """Those of ``ids`` that are points without this vector."""
    if not ids:
        return set()
    chosen = {"must": [{"has_id": point_ids(ids)}], "must_not": [{"has_vector": vector}]}
    try:
        return {name for page in listed(qdrant, collection, chosen) for name in page}
    except TooMuchError:
        if len(ids) == 1:
            raise
    halves = (ids[: len(ids) // 2], ids[len(ids) // 2 :])
    return set().union(*(lacking(qdrant, collection, vector, half) for half in halves))


def listed(qdrant: Qdrant, collection: str, chosen: Mapping[str, Any]) -> Iterator[list[str]]:
    """The ids of points that a filter (Qdrant's JSON) is true of, a page at a time."""
    for page in _scrolled(qdrant, collection, chosen, False):
        yield [name for name, _ in page]


def values(qdrant: Qdrant, collection: str, key: str) -> Iterator[list[Any]]:
    """What all points have under a key of the payload, a page at a time; None where a point has nothing there."""
    for page in _scrolled(qdrant, collection, {}, [key]):
        yield [payload_value(payload, key) for _, payload in page]


def _scrolled(
    qdrant: Qdrant, collection: str, chosen: Mapping[str, Any], payload: bool | list[str]
) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    offset: Any = None
    while True:
        if qdrant.rest:
            body = {"filter": chosen, "limit": LISTED, "offset": offset, "with_payload": payload, "with_vector": False}
            result = qdrant.rest.send("POST", path(collection, "points", "scroll"), body)
            yield [(str(point["id"]), point.get("payload") or {}) for point in result["points"]]
            offset = result.get("next_page_offset")
        else:
            with qdrant.refused():
                points, offset = qdrant.client.scroll(
                    collection,
                    models.Filter(**chosen),
                    limit=LISTED,
                    offset=offset,
                    with_payload=payload,
                    with_vectors=False,
                )
            yield [(str(point.id), point.payload or {}) for point in points]
        if offset is None:
            return


def count_with(qdrant: Qdrant, collection: str, vector: str) -> int:
    """How many points have this vector."""
    chosen = models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
    with qdrant.refused():
        return qdrant.client.count(collection, chosen, exact=True).count
