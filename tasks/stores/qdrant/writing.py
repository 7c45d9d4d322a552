"""Writes to Qdrant that are done when the call returns: waited for, and acknowledged as completed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from qdrant_client import models

from tasks.base.errors import TransientError
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.errors import AbsentError, TooMuchError
from tasks.stores.qdrant.points import Point, PointId, fetched, model_vector, path
from tasks.stores.qdrant.rest import completed

BODY = 8_000_000
"""Bytes a request, of the 32 MB that Qdrant takes unless it is told otherwise."""
MANY = 1_000
"""Points a request."""
ROUNDS = 5
"""Of a write to points that are deleted meanwhile."""


def upsert(
    qdrant: Qdrant,
    collection: str,
    points: Sequence[Point],
    mode: str | None = None,
    update_filter: Mapping[str, Any] | None = None,
) -> None:
    """Writes whole points: what a point of the same id had is gone, its other vectors too. ``mode``: upsert, insert_only or
    update_only; ``update_filter`` (Qdrant's JSON) holds of the points that may be replaced. Both are for a server with
    conditional updates."""
    extra = _given(update_mode=mode, update_filter=update_filter)
    if qdrant.rest:
        _send(qdrant, "PUT", path(collection, "points"), points, extra)
        return
    whole = [models.PointStruct(id=p["id"], vector=model_vector(p["vector"]), payload=p.get("payload")) for p in points]
    with qdrant.refused():
        _acknowledged(qdrant, qdrant.client.upsert(collection, whole, wait=True, **_models(extra)))


def update_vectors(
    qdrant: Qdrant, collection: str, points: Sequence[Point], update_filter: Mapping[str, Any] | None = None
) -> list[PointId]:
    """Writes the named vectors of points ({"id", "vector": {name: …}}) that exist, and nothing else of them. Returns the ids
    that are gone."""
    extra, named = _given(update_filter=update_filter), {p["id"]: p for p in points}
    return _where_they_are(
        qdrant, collection, list(named), lambda ids: _update(qdrant, collection, [named[i] for i in ids], extra)
    )


def overwrite_payload(qdrant: Qdrant, collection: str, ids: Sequence[PointId], payload: Mapping[str, Any]) -> None:
    """Gives points that exist this payload, and no other."""

    def give(some: Sequence[PointId]) -> None:
        with qdrant.refused():
            _acknowledged(qdrant, qdrant.client.overwrite_payload(collection, dict(payload), list(some), wait=True))

    _where_they_are(qdrant, collection, ids, give)


def delete(qdrant: Qdrant, collection: str, ids: Sequence[PointId]) -> None:
    """Deletes points; one that is not there is no error."""
    for part in _batched(ids):
        with qdrant.refused():
            _acknowledged(qdrant, qdrant.client.delete(collection, models.PointIdsList(points=list(part)), wait=True))


def delete_vectors(qdrant: Qdrant, collection: str, names: Sequence[str], ids: Sequence[PointId]) -> None:
    """Takes these vectors from points that exist, which keep everything else."""

    def take(some: Sequence[PointId]) -> None:
        with qdrant.refused():
            _acknowledged(qdrant, qdrant.client.delete_vectors(collection, list(names), list(some), wait=True))

    for part in _batched(ids):
        _where_they_are(qdrant, collection, part, take)


def existing(qdrant: Qdrant, collection: str, ids: Sequence[PointId]) -> set[PointId]:
    """Those of ``ids`` that are points."""
    wanted = {str(i): i for i in ids}
    return {
        wanted[text]
        for page in fetched(qdrant, collection, ids, False, (), MANY)
        for text in page.ids
        if text in wanted
    }


def _where_they_are(
    qdrant: Qdrant, collection: str, ids: Sequence[PointId], write: Callable[[Sequence[PointId]], None]
) -> list[PointId]:
    """Writes to those of the points that exist: Qdrant refuses a write that names one which was deleted meanwhile. Returns the ids
    that are gone."""
    there, gone = list(ids), list[PointId]()
    for _ in range(ROUNDS):
        if not there:
            return gone
        try:
            write(there)
            return gone
        except AbsentError:
            left = existing(qdrant, collection, there)
            if len(left) == len(there):
                raise
            gone += [i for i in there if i not in left]
            there = [i for i in there if i in left]
    raise TransientError(f"points of {collection} at {qdrant.place} are being deleted faster than they are written to")


def _update(qdrant: Qdrant, collection: str, points: Sequence[Point], extra: dict[str, Any]) -> None:
    if qdrant.rest:
        _send(qdrant, "PUT", path(collection, "points", "vectors"), points, extra)
        return
    named = [models.PointVectors(id=p["id"], vector=model_vector(p["vector"])) for p in points]
    with qdrant.refused():
        _acknowledged(qdrant, qdrant.client.update_vectors(collection, named, wait=True, **_models(extra)))


def _send(qdrant: Qdrant, method: str, where: str, points: Sequence[Point], extra: dict[str, Any]) -> None:
    assert qdrant.rest
    tail = b"".join(b"," + orjson.dumps(name) + b":" + orjson.dumps(value) for name, value in extra.items())
    for part in _parts([orjson.dumps(p, option=orjson.OPT_SERIALIZE_NUMPY) for p in points]):
        pending = [part]
        while pending:
            some = pending.pop(0)
            body = b'{"points":[' + b",".join(some) + b"]" + tail + b"}"
            try:
                result = orjson.loads(qdrant.rest.ask(method, where, body, wait="true"))["result"]
            except TooMuchError:
                if len(some) == 1:
                    raise
                half = len(some) // 2
                pending = [some[:half], some[half:], *pending]
                continue
            completed(qdrant.place, result)


def _parts(encoded: list[bytes]) -> Iterator[list[bytes]]:
    part, size = list[bytes](), 0
    for one in encoded:
        if part and (size + len(one) > BODY or len(part) == MANY):
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one)
    if part:
        yield part


def _acknowledged(qdrant: Qdrant, result: models.UpdateResult) -> None:
    completed(qdrant.place, {"status": str(result.status.value)})


def _batched(ids: Sequence[PointId]) -> Iterator[Sequence[PointId]]:
    return (ids[at : at + MANY] for at in range(0, len(ids), MANY))


def _given(**conditions: Any) -> dict[str, Any]:
    return {name: value for name, value in conditions.items() if value is not None}


def _models(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of a write as the client library takes them."""
    kinds: dict[str, Any] = {"update_mode": models.UpdateMode, "update_filter": lambda f: models.Filter(**f)}
    return {name: kinds[name](value) for name, value in conditions.items()}
