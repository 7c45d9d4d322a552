"""Points as Qdrant hands them out and takes them, and the batches that travel."""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pyarrow as pa
import simdjson
from qdrant_client import models

from tasks.stores import canonical
from tasks.stores.interface import records, vector_column, vectors
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.errors import TooMuchError
from tasks.stores.qdrant.shapes import UNNAMED

Point = dict[str, Any]
"""A point to be written: {"id", "vector", "payload"}, its vectors as arrays float32[d] or the JSON of a sparse or multi one."""
PointId = int | str
Documents = Callable[[Sequence[Mapping[str, Any]]], list[str | None]]
"""The documents of points, from their payloads."""

PAGE_NUMBERS = 512_000
"""Vector components a page."""
PAGE_POINTS = 2_000
LARGEST = 2**64


@dataclass(frozen=True)
class Reading:
    """What of a point a record is made of."""

    vector: str
    """The name of the one that is the record's embedding; "" is the unnamed one."""
    size: int
    documents: Documents
    others: Collection[str]
    """The names of the vectors that travel beside it."""


@dataclass(frozen=True)
class Points:
    """Points as they were read, one line each."""

    ids: list[str]
    payloads: list[dict[str, Any]]
    """Empty dictionaries where none was asked for."""
    vectors: list[dict[str, Any]]
    """By name: float[d], or the JSON of a sparse or multi-vector."""


def point_id(text: str) -> PointId:
    """The id that a record's id is the text of. Raises ValueError for what is the id of no point."""
    if text.isascii() and text.isdigit() and str(number := int(text)) == text and number < LARGEST:
        return number
    return str(uuid.UUID(text))


def payload_value(payload: Mapping[str, Any], key: str) -> Any:
    """What stands at ``key``, a path with dots where no key is called so; None where nothing does."""
    value = payload.get(key)
    if value is None and "." in key:
        value = payload
        for step in key.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def payload_texts(key: str) -> Documents:
    """Documents that are the text at ``key`` of the payload; a number, as what is missing, is none."""

    def of(payload: Mapping[str, Any]) -> str | None:
        value = payload_value(payload, key)
        return value if isinstance(value, str) else None

    return lambda payloads: [of(payload) for payload in payloads]


def no_documents(payloads: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Documents of points that say nothing."""
    return [None] * len(payloads)


def path(collection: str, *parts: str) -> str:
    """The path of a collection in the REST API."""
    return "/".join(["collections", quote(collection, safe=""), *parts])


def fetched(
    qdrant: Qdrant, collection: str, ids: Sequence[PointId], payload: bool, names: Collection[str], page: int
) -> Iterator[Points]:
    """The points of ``ids`` that exist, with the vectors ``names``, about ``page`` at a time."""
    at = 0
    while at < len(ids):
        part = list(ids[at : at + page])
        try:
            yield _retrieved(qdrant, collection, part, payload, names)
        except TooMuchError:
            if page == 1:
                raise
            page = (page + 1) // 2
            continue
        at += len(part)


def batch(points: Points, reading: Reading, content: bool = True) -> pa.RecordBatch:
    """The records of points. Without ``content``, only ids and embeddings."""
    count, schema = len(points.ids), records(reading.size, others=bool(reading.others))
    empty: list[str | None] = [None] * count
    columns = [
        pa.array(points.ids, pa.string()),
        pa.array(reading.documents(points.payloads) if content else empty, pa.string()),
        pa.array([canonical.dumps(p) for p in points.payloads] if content else empty, pa.string()),
        pa.array(empty, pa.string()),
        _embeddings(points.vectors, reading),
    ]
    if reading.others:
        columns.append(pa.array([_others(v, reading) if content else None for v in points.vectors], pa.binary()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def written(batch: pa.RecordBatch, vector: str) -> list[Point]:
    """The points of records, to be written; ``vector`` is the name of the one that the embedding is."""
    ids, payloads = batch.column("id").to_pylist(), batch.column("metadata").to_pylist()
    present, matrix = batch.column("embedding").is_valid().to_pylist(), vectors(batch)
    beside = batch.column("others").to_pylist() if "others" in batch.schema.names else [None] * len(ids)
    points = []
    for at, (text, payload, others) in enumerate(zip(ids, payloads, beside, strict=True)):
        every = orjson.loads(others) if others else {}
        if present[at]:
            every[vector] = matrix[at]
        points.append({"id": point_id(text), "vector": every, "payload": canonical.loads(payload) or {}})
    return points


def model_vector(vector: Any) -> Any:
    """A vector of a Point as qdrant-client's local mode takes it."""
    match vector:
        case np.ndarray():
            return vector.tolist()
        case {"indices": indices, "values": values}:
            return models.SparseVector(indices=indices, values=values)
        case dict():
            return {name: model_vector(one) for name, one in vector.items()}
    return vector


def _retrieved(qdrant: Qdrant, collection: str, ids: list[PointId], payload: bool, names: Collection[str]) -> Points:
    vectors = list(names) if names else False
    if qdrant.rest:
        body = {"ids": ids, "with_payload": payload, "with_vector": vectors}
        return _answered(qdrant.rest.points(path(collection, "points"), body))
    with qdrant.refused():
        points = qdrant.client.retrieve(collection, ids, with_payload=payload, with_vectors=vectors)
    return Points(
        [str(p.id) for p in points],
        [p.payload or {} for p in points],
        [_named({} if p.vector is None else _plain(p.vector)) for p in points],
    )


def _answered(result: Any) -> Points:
    ids, payloads, every = list[str](), list[dict[str, Any]](), list[dict[str, Any]]()
    for point in result:
        ids.append(str(point["id"]))
        payload, vector = point.get("payload"), point.get("vector")
        payloads.append({} if payload is None else payload.as_dict())
        match vector:
            case simdjson.Object():
                every.append({name: _numbers(vector[name]) for name in vector})
            case None:
                every.append({})
            case _:
                every.append({UNNAMED: _numbers(vector)})
    return Points(ids, payloads, every)


def _numbers(vector: Any) -> Any:
    if isinstance(vector, simdjson.Object):
        return vector.as_dict()
    if len(vector) and isinstance(vector[0], simdjson.Array):  # a buffer of it would be flat
        return vector.as_list()
    return np.frombuffer(vector.as_buffer(of_type="d"))


def _plain(vector: Any) -> Any:
    if isinstance(vector, models.SparseVector):
        return {"indices": vector.indices, "values": vector.values}
    return {name: _plain(one) for name, one in vector.items()} if isinstance(vector, dict) else vector


def _named(vector: Any) -> dict[str, Any]:
    return vector if isinstance(vector, dict) else {UNNAMED: vector}


def _embeddings(every: list[dict[str, Any]], reading: Reading) -> pa.Array:
    matrix, present = np.zeros((len(every), reading.size), np.float32), np.zeros(len(every), bool)
    for at, vectors_of in enumerate(every):
        if (vector := vectors_of.get(reading.vector)) is not None:
            matrix[at], present[at] = vector, True
    return vector_column(matrix, present)


def _others(every: dict[str, Any], reading: Reading) -> bytes | None:
    """Canonical JSON, since a hash is made of it: a component is the shortest text that is the same float32."""
    rest = {name: _float32(every[name]) for name in sorted(reading.others) if name in every}
    return orjson.dumps(rest, option=orjson.OPT_SERIALIZE_NUMPY) if rest else None


def _float32(vector: Any) -> Any:
    match vector:
        case {"indices": indices, "values": values}:
            order = np.argsort(np.asarray(indices, np.int64))
            return {"indices": np.asarray(indices, np.int64)[order], "values": np.asarray(values, np.float32)[order]}
        case [[*_], *_]:
            return [np.asarray(one, np.float32) for one in vector]
    return np.ascontiguousarray(vector, np.float32)
