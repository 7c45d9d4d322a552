"""What is well-formed and still refused: limits that Qdrant's own validation puts on a request, each a 422."""

from collections.abc import Iterator
from typing import Any

from tests.helpers.qdrant_engine import JSON, Refused, dense_vectors

SIZE = (1, 65536)
LEAST = {
    "shard_number": 1,
    "replication_factor": 1,
    "write_consistency_factor": 1,
    "hnsw_config.ef_construct": 4,
    "params.hnsw_ef": 1,
    "limit": 1,
}
"""The smallest value of a field of a request, where it is named."""
TESTS = ("match", "range", "geo_bounding_box", "geo_radius", "geo_polygon", "values_count", "is_empty", "is_null")
FILTERS = ("filter", "update_filter", "must", "should", "must_not", "min_should", "conditions", "prefetch", "searches")


def validate(operation: str, body: Any) -> None:
    """Raises Refused (422)."""
    if not isinstance(body, dict):
        return
    for path, least in LEAST.items():
        value: Any = body
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, int) and value < least:
            invalid(path, f"value {value} invalid, must be {least} or larger")
    if operation == "create_collection":
        for name, one in dense_vectors(body).items():
            sized(f"vectors.{name}.size" if name else "vectors.size", one["size"])
        for name in (body.get("sparse_vectors") or {}).keys() & dense_vectors(body).keys():
            unique = "Dense and sparse vector names must be unique"
            raise Refused(400, f"Wrong input: {unique} - duplicate found with '{name}'")
    if operation == "create_vector_name" and "dense" in body:
        sized("dense.size", body["dense"]["size"])
    for field, vector in written(operation, body):
        whole(field, vector)
    for condition in (one for name in FILTERS for one in conditions(body.get(name))):
        if all(condition.get(test) is None for test in TESTS):
            invalid("filter", "At least one field condition must be specified")


def sized(path: str, size: int) -> None:
    least, most = SIZE
    if not least <= size <= most:
        invalid(path, f"value {size} invalid, must be from {least} to {most}")


def written(operation: str, body: JSON) -> Iterator[tuple[str, Any]]:
    """The vectors that a request writes, and where each stands in it."""
    if operation == "batch_update":
        for one in body["operations"]:
            for kind, inner in one.items():
                yield from written({"upsert": "upsert_points"}.get(kind, kind), inner)
    elif operation in ("upsert_points", "update_vectors") and "points" in body:
        for i, point in enumerate(body["points"]):
            if operation == "update_vectors" and not point["vector"]:
                invalid(f"points[{i}].vector", "must specify vectors to update for point")
            yield from each(f"points[{i}].vector", point["vector"])
    elif operation == "upsert_points":
        vectors = body["batch"]["vectors"]
        for column in vectors.values() if isinstance(vectors, dict) else (vectors,):
            for i, vector in enumerate(column):
                yield from each(f"batch.vectors[{i}]", vector)


def each(field: str, vector: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(vector, dict) and "indices" not in vector:
        for name, one in vector.items():
            yield f"{field}.{name}", one
    else:
        yield field, vector


def whole(field: str, vector: Any) -> None:
    """Refuses a vector of nothing, and a sparse one whose halves do not belong together."""
    if isinstance(vector, dict):
        indices, values = vector.get("indices", []), vector.get("values", [])
        if len(indices) != len(values):
            invalid(f"{field}.values", "must be the same length as indices")
        if len(set(indices)) != len(indices):
            invalid(f"{field}.indices", "must be unique")
    elif isinstance(vector, list) and (not vector or (isinstance(vector[0], list) and not all(vector))):
        invalid(field, "dense vector must not be empty")


def conditions(value: Any) -> Iterator[JSON]:
    """Every condition of every filter of a request."""
    if isinstance(value, list):
        for one in value:
            yield from conditions(one)
    elif isinstance(value, dict):
        if isinstance(value.get("key"), str):
            yield value
        for name in FILTERS:
            if name in value:
                yield from conditions(value[name])


def invalid(field: str, message: str) -> None:
    raise Refused(422, f"Validation error in JSON body: [{field}: {message}]")
