"""What is asked of one collection's points, and what is written to them: each operation of the API, and the engine's."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from tests.helpers.qdrant_engine import (
    JSON,
    Refused,
    order_by,
    payload_selector,
    record,
    update_mode,
    vector_in,
)
from tests.helpers.qdrant_filters import filter_of
from tests.helpers.qdrant_storage import Collection, answered

Operation = edge.UpdateOperation


# Reading.


def retrieve(collection: Collection, body: JSON) -> list[JSON]:
    """Points by id; those that are not there are left out."""
    payload, vector = body.get("with_payload", True), body.get("with_vector") or False
    ids = [checked_id(one) for one in body["ids"]]
    with answered():
        points = collection.shard.retrieve(ids, payload_selector(payload), vector)
        return [record(point, payload is not False, vector is not False) for point in points]


def scroll(collection: Collection, body: JSON) -> JSON:
    """A page of points in the order of their ids, or of a payload field."""
    payload, vector = body.get("with_payload", True), body.get("with_vector") or False
    wanted = body.get("order_by")
    limit = 10 if body.get("limit") is None else body["limit"]
    if wanted is not None and body.get("offset") is not None:
        raise Refused(400, "Wrong input: Cannot use an `offset` when using `order_by`")
    with answered():
        points, offset = collection.shard.scroll(
            edge.ScrollRequest(
                offset=None if body.get("offset") is None else checked_id(body["offset"]),
                limit=limit,
                filter=filter_of(body.get("filter")),
                with_payload=payload_selector(payload),
                with_vector=vector,
                order_by=None if wanted is None else order_by(wanted),
            )
        )
        records = [record(point, payload is not False, vector is not False) for point in points]
    return {"points": records, "next_page_offset": str(offset) if isinstance(offset, UUID) else offset}


def count(collection: Collection, body: JSON) -> JSON:
    with answered():
        exact = body.get("exact") is not False
        return {"count": collection.shard.count(edge.CountRequest(exact=exact, filter=filter_of(body.get("filter"))))}


def facet(collection: Collection, body: JSON) -> JSON:
    with answered():
        request = edge.FacetRequest(
            body["key"], body.get("limit") or 10, bool(body.get("exact")), filter_of(body.get("filter"))
        )
        return {"hits": [{"value": hit.value, "count": hit.count} for hit in collection.shard.facet(request).hits]}


def checked_id(identity: int | str) -> int | str:
    """Raises Refused for a point's id that is neither a number nor a UUID."""
    if isinstance(identity, int) and not isinstance(identity, bool) and 0 <= identity < 1 << 64:
        return identity
    try:
        UUID(str(identity))
    except ValueError:
        kinds = "valid values are either an unsigned integer or a UUID"
        raise Refused(400, f"Format error in JSON body: value {identity} is not a valid point ID, {kinds}") from None
    return identity


# Writing: each returns the operation of the engine.


def upsert(body: JSON) -> Operation:
    points = body["points"] if "points" in body else transposed(body["batch"])
    made = [edge.Point(checked_id(one["id"]), vector_in(one["vector"]), one.get("payload")) for one in points]
    condition = filter_of(body.get("update_filter"))
    return Operation.upsert_points(made, condition, update_mode(body.get("update_mode")))


def upserted(body: JSON) -> list[int | str]:
    """The ids of an upsert."""
    return [one["id"] for one in body["points"]] if "points" in body else list(body["batch"]["ids"])


def transposed(batch: JSON) -> list[JSON]:
    """Points of a batch, whose fields are lists. Raises Refused where these are not equally long."""
    ids, vectors = batch["ids"], batch["vectors"]
    payloads = batch.get("payloads") or [None] * len(ids)
    if isinstance(vectors, dict):
        lengths = {len(one) for one in vectors.values()}
        rows = [{name: one[i] for name, one in vectors.items()} for i in range(min(lengths, default=0))]
    else:
        lengths, rows = {len(vectors)}, vectors
    if lengths != {len(ids)} or len(payloads) != len(ids):
        message = f"number of ids and vectors must be equal ({len(ids)} != {next(iter(lengths), 0)})"
        raise Refused(422, f"Validation error in JSON body: [{message}]")
    return [{"id": i, "vector": v, "payload": p} for i, v, p in zip(ids, rows, payloads, strict=True)]


def update_vectors(body: JSON) -> Operation:
    vectors = [edge.PointVectors(checked_id(one["id"]), vector_in(one["vector"])) for one in body["points"]]
    return Operation.update_vectors(vectors, filter_of(body.get("update_filter")))


def delete_points(body: JSON) -> Operation:
    if "points" in body:
        return Operation.delete_points([checked_id(one) for one in body["points"]])
    return Operation.delete_points_by_filter(filter_of(body["filter"]))


def set_payload(body: JSON) -> Operation:
    return chosen(body, Operation.set_payload, Operation.set_payload_by_filter, body["payload"], body.get("key"))


def overwrite_payload(body: JSON) -> Operation:
    by_id, by_filter = Operation.overwrite_payload, Operation.overwrite_payload_by_filter
    return chosen(body, by_id, by_filter, body["payload"], body.get("key"))


def delete_payload(body: JSON) -> Operation:
    return chosen(body, Operation.delete_payload, Operation.delete_payload_by_filter, body["keys"])


def clear_payload(body: JSON) -> Operation:
    return chosen(body, Operation.clear_payload, Operation.clear_payload_by_filter)


def delete_vectors(body: JSON) -> Operation:
    return chosen(body, Operation.delete_vectors, Operation.delete_vectors_by_filter, body["vector"])


def chosen(body: JSON, by_id: Callable[..., Any], by_filter: Callable[..., Any], *rest: Any) -> Operation:
    """The operation for the points that a request names, or that a filter does."""
    if body.get("points") is not None:
        return by_id([checked_id(one) for one in body["points"]], *rest)
    if body.get("filter") is not None:
        return by_filter(filter_of(body["filter"]), *rest)
    raise Refused(422, "Validation error in JSON body: [internal: Either list of point ids or filter must be provided]")


WRITES: dict[str, Callable[[JSON], Operation]] = {
    "upsert_points": upsert,
    "update_vectors": update_vectors,
    "delete_points": delete_points,
    "set_payload": set_payload,
    "overwrite_payload": overwrite_payload,
    "delete_payload": delete_payload,
    "clear_payload": clear_payload,
    "delete_vectors": delete_vectors,
}
BATCHED = {
    "upsert": "upsert_points",
    "delete": "delete_points",
    **{name: name for name in WRITES if name not in ("upsert_points", "delete_points")},
}
"""Operations of a batch, by their names there."""
