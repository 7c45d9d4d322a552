"""Each operation of Qdrant's API over what a folder keeps: what the request names and its body in, the result out."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

from tests.helpers import qdrant_config, qdrant_points, qdrant_snapshots
from tests.helpers.qdrant_engine import JSON, Refused, camel, dense_vectors, index_schema
from tests.helpers.qdrant_queries import query
from tests.helpers.qdrant_state import Request, Served, at
from tests.helpers.qdrant_storage import Collection, answered

INVALID = set('<>:"/\\|?*\0\x1f')
OPTIMIZING = 0.2
"""Seconds for which a collection is yellow after a write, once it is large enough for an index."""


# The service.


def root(served: Served, request: Request) -> JSON:
    return {"title": "qdrant - vector search engine", "version": served.version, "commit": "test server"}


def telemetry(served: Served, request: Request) -> JSON:
    count = len(served.storage.collections)
    return {
        "id": "00000000-0000-0000-0000-000000000000",
        "app": {"name": "qdrant", "version": served.version, "startup": "2026-01-01T00:00:00Z"},
        "collections": {"number_of_collections": count},
    }


def cluster_status(served: Served, request: Request) -> JSON:
    return {"status": "disabled"}


# Collections.


def get_collections(served: Served, request: Request) -> JSON:
    return {"collections": [{"name": name} for name in sorted(served.storage.collections)]}


def collection_exists(served: Served, request: Request) -> JSON:
    name = request.names["collection_name"]
    return {"exists": served.storage.aliases.get(name, name) in served.storage.collections}


def create_collection(served: Served, request: Request) -> bool:
    name = request.names["collection_name"]
    if name in served.storage.collections:
        raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
    if name in served.storage.aliases:
        reason = "Alias with the same name already exists"
        raise Refused(400, f"Wrong input: Can't create collection with name {name}. {reason}")
    if len(name) > 255 or INVALID & set(name):
        raise Refused(422, "Validation error in path parameters: [collection_name: value is no valid collection name]")
    served.storage.create(name, qdrant_config.created(request.body))
    return True


def update_collection(served: Served, request: Request) -> bool:
    collection = at(served, request)
    before = collection.config
    collection.save(config=qdrant_config.changed(before, request.body))
    if any(before[key] != collection.config[key] for key in before if key not in ("metadata", "strict_mode_config")):
        collection.reload()
        written(served, collection)
    return True


def delete_collection(served: Served, request: Request) -> bool:
    name = request.names["collection_name"]
    served.waiting.pop(name, None)
    return served.storage.delete(name)


def get_collection(served: Served, request: Request) -> JSON:
    collection = at(served, request)
    info = collection.shard.info()
    answer = {
        "status": status(served, collection),
        "optimizer_status": "ok",
        "indexed_vectors_count": collection.indexed * max(1, len(dense_vectors(collection.config["params"]))),
        "points_count": info.points_count,
        "segments_count": info.segments_count,
        "config": collection.config,
        "payload_schema": {
            name: {"data_type": kind_of(schema), "points": info.payload_schema[name].points}
            | ({"params": schema} if isinstance(schema, dict) else {})
            for name, schema in sorted(collection.indexes.items())
        },
    }
    if served.release >= (1, 17):
        queue = {"length": len(served.waiting.get(collection.name, ())), "deferred_points": deferred(collection)}
        answer["update_queue"] = {key: value for key, value in queue.items() if value is not None}
    return answer


def kind_of(schema: str | JSON) -> str:
    return schema if isinstance(schema, str) else schema["type"]


def status(served: Served, collection: Collection) -> str:
    """Yellow while optimizers are thought to run."""
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


def written(served: Served, collection: Collection) -> None:
    """Has the optimizers run: the engine's own where they decide what is read, else for appearance."""
    if needs_index(collection):
        collection.optimized = asyncio.get_running_loop().time() + OPTIMIZING
    if collection.builds and not served.unoptimized:
        with answered():
            collection.shard.optimize()


def deferred(collection: Collection) -> int | None:
    """Points that are there and not read before an optimizer has run."""
    if not collection.builds:
        return None
    return max(0, collection.points() - collection.shard.count(edge.CountRequest(exact=True)))


def get_optimizations(served: Served, request: Request) -> JSON:
    running = status(served, at(served, request)) == "yellow"
    summary = {"queued_optimizations": int(running), "queued_segments": int(running), "queued_points": 0}
    return {"summary": summary | {"idle_segments": int(not running)}, "running": []}


def collection_cluster_info(served: Served, request: Request) -> JSON:
    shard = {"shard_id": 0, "points_count": at(served, request).points(), "state": "Active"}
    return {"peer_id": 1, "shard_count": 1, "local_shards": [shard], "remote_shards": [], "shard_transfers": []}


# Aliases.


def update_aliases(served: Served, request: Request) -> bool:
    """No reader comes between two actions of one call; an error midway leaves those before it."""
    for action in request.body["actions"]:
        (kind, wanted), *_ = action.items()
        aliases = dict(served.storage.aliases)
        if kind == "create_alias":
            name, target = wanted["alias_name"], wanted["collection_name"]
            if target not in served.storage.collections:
                raise Refused(404, f"Not found: Collection `{target}` doesn't exist!")
            if name in served.storage.collections:
                raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
            aliases[name] = target
        elif kind == "delete_alias":
            aliases.pop(wanted["alias_name"], None)
        else:
            old = wanted["old_alias_name"]
            if old not in aliases:
                raise Refused(404, f"Not found: Alias {old} does not exists!")
            aliases[wanted["new_alias_name"]] = aliases.pop(old)
        served.storage.save_aliases(aliases)
    return True


def get_collections_aliases(served: Served, request: Request) -> JSON:
    pairs = sorted(served.storage.aliases.items())
    return {"aliases": [{"alias_name": alias, "collection_name": target} for alias, target in pairs]}


def get_collection_aliases(served: Served, request: Request) -> JSON:
    name = at(served, request).name
    every = get_collections_aliases(served, request)["aliases"]
    return {"aliases": [one for one in every if one["collection_name"] == name]}


# Payload indexes and vector names.


def create_field_index(served: Served, request: Request) -> JSON:
    collection, name, schema = at(served, request), request.body["field_name"], request.body.get("field_schema")
    if schema is None:
        raise Refused(400, f"Wrong input: Unable to infer type for the field '{name}'. Please specify `field_type`")
    with answered():
        operation = edge.UpdateOperation.create_field_index(name, index_schema(schema))
    number = collection.update(operation)
    collection.save(indexes=collection.indexes | {name: qdrant_config.cleaned(schema)})
    return completed(request, number)


def delete_field_index(served: Served, request: Request) -> JSON:
    collection, name = at(served, request), request.names["field_name"]
    collection.save(indexes={key: one for key, one in collection.indexes.items() if key != name})
    return completed(request, collection.update(edge.UpdateOperation.delete_field_index(name)))


def create_vector_name(served: Served, request: Request) -> JSON:
    collection, name, wanted = at(served, request), request.names["vector_name"], request.body
    config = qdrant_config.with_vector(collection.config, name, wanted)
    if len(name.encode()) > 200 or INVALID & set(name):
        raise Refused(422, "Validation error in path parameters: [vector_name: value is no valid vector name]")
    number = collection.update(new_vector(name, wanted))
    collection.save(config=config)
    return completed(request, number)


def new_vector(name: str, wanted: JSON) -> edge.UpdateOperation:
    kind = "dense" if "dense" in wanted else "sparse"
    one = wanted[kind]
    datatype = one.get("datatype") and getattr(edge.VectorStorageDatatype, camel(one["datatype"]))
    if kind == "sparse":
        modifier = edge.Modifier.Idf if one.get("modifier") == "idf" else None
        return edge.UpdateOperation.create_sparse_vector(name, modifier, datatype)
    multi = one.get("multivector_config") and edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    distance = getattr(edge.Distance, one["distance"])
    return edge.UpdateOperation.create_dense_vector(name, one["size"], distance, multi, datatype)


def delete_vector_name(served: Served, request: Request) -> JSON:
    collection, name = at(served, request), request.names["vector_name"]
    collection.save(config=qdrant_config.without_vector(collection.config, name))
    return completed(request, collection.update(edge.UpdateOperation.delete_vector_name(name)))


# Points.


def get_point(served: Served, request: Request) -> JSON:
    text = request.names["id"]
    points = qdrant_points.retrieve(
        at(served, request), {"ids": [int(text) if text.isdigit() else text], "with_vector": True}
    )
    if not points:
        raise Refused(404, f"Not found: Point with id {text} does not exists!")
    return points[0]


def get_points(served: Served, request: Request) -> list[JSON]:
    return qdrant_points.retrieve(at(served, request), request.body)


def scroll_points(served: Served, request: Request) -> JSON:
    return qdrant_points.scroll(at(served, request), request.body)


def count_points(served: Served, request: Request) -> JSON:
    return qdrant_points.count(at(served, request), request.body)


def facet(served: Served, request: Request) -> JSON:
    return qdrant_points.facet(at(served, request), request.body)


def query_points(served: Served, request: Request) -> JSON:
    return query(at(served, request), request.body)


def query_batch_points(served: Served, request: Request) -> list[JSON]:
    return [query(at(served, request), one) for one in request.body["searches"]]


async def write_points(served: Served, request: Request) -> JSON:
    """Any write of points."""
    collection = at(served, request)
    with answered():
        operations = qdrant_points.WRITES[request.operation](request.body)
    return await applied(served, collection, request, operations)


async def batch_update(served: Served, request: Request) -> list[JSON]:
    collection = at(served, request)
    with answered():
        batch = qdrant_points.batch_update(request.body)
    return [await applied(served, collection, request, operations) for operations in batch]


async def applied(served: Served, collection: Collection, request: Request, operations: list[Any]) -> JSON:
    """Applies operations now, or after a lag where the request does not wait. Writes keep their order."""

    def apply() -> int:
        number = [collection.update(operation) for operation in operations][-1]
        written(served, collection)
        return number

    queue = served.waiting.setdefault(collection.name, [])
    if not request.wait and served.lag:
        queue.append(apply)
        asyncio.get_running_loop().call_later(served.lag, overtake, served, collection, apply)
        return {"operation_id": collection.operations + len(queue), "status": "acknowledged"}
    for earlier in list(queue):
        overtake(served, collection, earlier)
    number = apply()
    until = None if request.timeout is None else asyncio.get_running_loop().time() + request.timeout
    while request.wait and served.unoptimized and deferred(collection):  # a write that waits waits for its points to be read
        if until is not None and asyncio.get_running_loop().time() >= until:
            return {"operation_id": number, "status": "wait_timeout"}
        await asyncio.sleep(0.01)
    return completed(request, number)


def overtake(served: Served, collection: Collection, apply: Callable[[], Any]) -> None:
    """Applies a write that is waiting, if it still is. What the engine refuses of it nobody is told, as with Qdrant."""
    queue = served.waiting.get(collection.name, [])
    if apply in queue:
        queue.remove(apply)
        try:
            apply()
        except Refused as refused:
            print(f"{collection.name}: {refused.message}", file=sys.stderr)


def completed(request: Request, number: int) -> JSON:
    return {"operation_id": number, "status": "completed" if request.wait else "acknowledged"}


HANDLERS: dict[str, Callable[[Served, Request], Any]] = {
    one.__name__: one
    for one in (
        root,
        telemetry,
        cluster_status,
        get_collections,
        collection_exists,
        create_collection,
        update_collection,
        delete_collection,
        get_collection,
        get_optimizations,
        collection_cluster_info,
        update_aliases,
        get_collections_aliases,
        get_collection_aliases,
        create_field_index,
        delete_field_index,
        create_vector_name,
        delete_vector_name,
        get_point,
        get_points,
        scroll_points,
        count_points,
        facet,
        query_points,
        query_batch_points,
        batch_update,
        qdrant_snapshots.list_snapshots,
        qdrant_snapshots.create_snapshot,
        qdrant_snapshots.get_snapshot,
        qdrant_snapshots.delete_snapshot,
        qdrant_snapshots.recover_from_snapshot,
    )
} | dict.fromkeys(qdrant_points.WRITES, write_points)
