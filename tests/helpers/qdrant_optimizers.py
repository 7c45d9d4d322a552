"""Optimizers, for appearance: when a collection is yellow, what is indexed, and which points are deferred.

No graph is ever built: the engine's own build would hold every request up for as long as it takes, and searches are exact
without one.
"""

import asyncio
from typing import Any

import qdrant_edge as edge

from tests.helpers.qdrant_engine import JSON, dense_vectors
from tests.helpers.qdrant_state import Served
from tests.helpers.qdrant_storage import Collection, answered


def status(served: Served, collection: Collection) -> str:
    """The colour of a collection."""
    if served.status:
        return served.status
    if asyncio.get_running_loop().time() < collection.optimized:
        return "yellow"
    if needs_index(collection):
        collection.indexed = collection.points()
    return "green"


def needs_index(collection: Collection) -> bool:
    """Whether vectors take more than the threshold, in KB, from which a segment is indexed; 0 turns indexing off."""
    threshold = collection.config["optimizer_config"].get("indexing_threshold")
    threshold = 10000 if threshold is None else threshold
    width = sum(one["size"] for one in dense_vectors(collection.config["params"]).values())
    return threshold > 0 and collection.points() * width * 4 > threshold * 1024


def started(served: Served, collection: Collection) -> None:
    """Has the optimizers start, where there is something for them to do."""
    if needs_index(collection):
        collection.optimized = asyncio.get_running_loop().time() + served.optimizing


def defers(served: Served, collection: Collection) -> bool:
    """Whether a new point is hidden until an optimizer has run."""
    wanted = collection.config["optimizer_config"].get("prevent_unoptimized")
    return bool(wanted) and served.unoptimized and needs_index(collection)


def new_points(collection: Collection, ids: list[Any]) -> set[Any]:
    """Those of the ids that no point has."""
    with answered():
        there = {str(point.id) for point in collection.shard.retrieve(ids, False, False)}
    return {one for one in ids if str(one) not in there}


def visible(collection: Collection, body: JSON) -> JSON:
    """A request to read, without the points that are deferred."""
    if not collection.deferred:
        return body
    hidden = {"must_not": [{"has_id": list(collection.deferred)}]}
    if "ids" in body:
        names = {str(one) for one in collection.deferred}
        return body | {"ids": [one for one in body["ids"] if str(one) not in names]}
    return body | {"filter": hidden | ({"must": [body["filter"]]} if body.get("filter") else {})}


def info(served: Served, collection: Collection) -> JSON:
    """What optimizers say of a collection, as collection info answers it."""
    shard: edge.ShardInfo = collection.shard.info()
    vectors = max(1, len(dense_vectors(collection.config["params"])))
    answer: JSON = {
        "status": status(served, collection),
        "optimizer_status": "ok",
        "indexed_vectors_count": collection.indexed * vectors,
        "points_count": shard.points_count,
        "segments_count": shard.segments_count,
    }
    if served.release >= (1, 17):
        queue = {"length": len(served.waiting.get(collection.name, ()))}
        if collection.config["optimizer_config"].get("prevent_unoptimized"):
            queue["deferred_points"] = len(collection.deferred)
        answer["update_queue"] = queue
    return answer
