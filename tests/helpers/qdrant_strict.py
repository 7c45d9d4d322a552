"""A collection's strict mode: the limits that it puts on a request."""

from collections.abc import Iterator
from typing import Any

from tests.helpers.qdrant_engine import JSON, Refused
from tests.helpers.qdrant_storage import Collection

SIZES = {"upsert_points": "upsert limit", "update_vectors": "update limit"}


def limits(collection: Collection) -> JSON:
    config = collection.config.get("strict_mode_config") or {}
    return config if config.get("enabled") else {}


def check_write(collection: Collection, operation: str, body: JSON) -> None:
    """Raises Refused for a write that is too large, or whose filter has no index."""
    strict = limits(collection)
    if not strict:
        return
    if operation in SIZES:
        size = len(body["points"] if "points" in body else body["batch"]["ids"])
        within(size, strict.get("upsert_max_batchsize"), SIZES[operation])
        most = strict.get("max_points_count")
        if most is not None and collection.points() >= most:
            refuse(f"Max points count limit of {most} reached!", "Cannot insert more points.")
    if strict.get("unindexed_filtering_update") is False:
        check_indexes(collection, body.get("filter") or body.get("update_filter"))


def check_read(collection: Collection, body: JSON) -> None:
    """Raises Refused for a read that asks for too much, or whose filter has no index."""
    strict = limits(collection)
    if not strict:
        return
    within(body.get("limit"), strict.get("max_query_limit"), "limit")
    if (body.get("params") or {}).get("exact") and strict.get("search_allow_exact") is False:
        refuse("Exact search disabled!", "Set exact=false.")
    if strict.get("unindexed_filtering_retrieve") is False:
        check_indexes(collection, body.get("filter"))


def within(value: int | None, limit: int | None, name: str) -> None:
    if value is not None and limit is not None and value > limit:
        refuse(f'Limit exceeded {value} > {limit} for "{name}"', f'Reduce the "{name}" parameter to or below {limit}.')


def check_indexes(collection: Collection, condition: Any) -> None:
    for key in keys(condition):
        if key not in collection.indexes:
            refuse(
                f'Index required but not found for "{key}"', "Create an index for this key or use a different filter."
            )


def keys(condition: Any) -> Iterator[str]:
    """Payload keys that a filter names."""
    if isinstance(condition, list):
        for one in condition:
            yield from keys(one)
    elif isinstance(condition, dict):
        if isinstance(condition.get("key"), str):
            yield condition["key"]
        for one in condition.values():
            yield from keys(one)


def refuse(reason: str, help_: str) -> None:
    raise Refused(400, f"Bad request: {reason}. Help: {help_}")
