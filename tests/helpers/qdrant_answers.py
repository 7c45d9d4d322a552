"""Each operation of Qdrant's API over what a folder keeps: what the request names and its body in, the result out."""

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

from tests.helpers import qdrant_config, qdrant_optimizers as optimizers, qdrant_points, qdrant_snapshots
from tests.helpers.qdrant_engine import JSON, Refused, index_schema, new_vector
from tests.helpers.qdrant_queries import query
from tests.helpers.qdrant_state import Request, Served, at
from tests.helpers.qdrant_storage import Collection, answered
from tests.helpers.qdrant_strict import check_read
from tests.helpers.qdrant_updates import batch_update, completed, write_points

INVALID = set('<>:"/\\|?*\0\x1f')
# The service.


def root(served: Served, request: Request) -> JSON:
    return {"title": "qdrant - vector search engine", "version": served.version, "commit": "0" * 40}


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
        optimizers.started(served, collection)
    return True


def delete_collection(served: Served, request: Request) -> bool:
    name = request.names["collection_name"]
    served.waiting.pop(name, None)
    return served.storage.delete(name)


def get_collection(served: Served, request: Request) -> JSON:
    collection = at(served, request)
    points = {name: index.points for name, index in collection.shard.info().payload_schema.items()}
    schema = {
        name: {"data_type": kind_of(one), "points": points[name]} | ({"params": one} if isinstance(one, dict) else {})
        for name, one in sorted(collection.indexes.items())
    }
    return optimizers.info(served, collection) | {"config": collection.config, "payload_schema": schema}


def kind_of(schema: str | JSON) -> str:
    return schema if isinstance(schema, str) else schema["type"]


def get_optimizations(served: Served, request: Request) -> JSON:
    running = optimizers.status(served, at(served, request)) == "yellow"
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


def reading(read: Callable[[Collection, JSON], Any]) -> Callable[[Served, Request], Any]:
    """An operation that reads: within the limits of strict mode, and without deferred points."""

    def answer(served: Served, request: Request) -> Any:
        collection = at(served, request)
        check_read(collection, request.body)
        return read(collection, optimizers.visible(collection, request.body))

    return answer


def query_batch_points(served: Served, request: Request) -> list[JSON]:
    collection = at(served, request)
    for one in request.body["searches"]:
        check_read(collection, one)
    return [query(collection, optimizers.visible(collection, one)) for one in request.body["searches"]]


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
        query_batch_points,
        batch_update,
        qdrant_snapshots.list_snapshots,
        qdrant_snapshots.create_snapshot,
        qdrant_snapshots.get_snapshot,
        qdrant_snapshots.delete_snapshot,
        qdrant_snapshots.recover_from_snapshot,
    )
}
HANDLERS |= dict.fromkeys(qdrant_points.WRITES, write_points)
HANDLERS |= {
    "get_points": reading(qdrant_points.retrieve),
    "scroll_points": reading(qdrant_points.scroll),
    "count_points": reading(qdrant_points.count),
    "facet": reading(qdrant_points.facet),
    "query_points": reading(query),
}
