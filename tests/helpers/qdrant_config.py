"""A collection's configuration as Qdrant keeps and answers it: made, changed, and taken back to what a version knows."""

from typing import Any

from tests.helpers.qdrant_engine import JSON, Refused, dense_vectors, without_none

SINCE = {
    "update_mode": (1, 17),
    "prevent_unoptimized": (1, 17),
    "read_fan_out_delay_ms": (1, 17),
    "search_max_batchsize": (1, 17),
    "max_resident_memory_percent": (1, 18),
    "memory": (1, 19),
    "id_tracker": (1, 20),
}
"""Fields of a request that older versions do not know and pass over without a word."""
HNSW: JSON = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0, "on_disk": False}
OPTIMIZERS: JSON = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": 10000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
}
WAL: JSON = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}


def known(value: Any, version: tuple[int, int]) -> Any:
    """A request's body without the fields that this version does not know. What users keep in it is left alone."""
    if isinstance(value, list):
        return [known(one, version) for one in value] if value and isinstance(value[0], dict) else value
    if not isinstance(value, dict):
        return value
    return {
        key: one if key in ("payload", "metadata", "vector") else known(one, version)
        for key, one in value.items()
        if SINCE.get(key, version) <= version
    }


def created(wanted: JSON) -> JSON:
    """The configuration of a collection made by this request."""
    vectors = wanted.get("vectors") or {}
    sparse = wanted.get("sparse_vectors")
    params: JSON = {
        "vectors": cleaned(vectors),
        "shard_number": wanted.get("shard_number") or 1,
        "sharding_method": wanted.get("sharding_method"),
        "replication_factor": wanted.get("replication_factor") or 1,
        "write_consistency_factor": wanted.get("write_consistency_factor") or 1,
        "on_disk_payload": True if wanted.get("on_disk_payload") is None else wanted["on_disk_payload"],
        "payload": wanted.get("payload"),
        "id_tracker": wanted.get("id_tracker"),
        "sparse_vectors": cleaned(sparse) if sparse else None,
    }
    optimizers = OPTIMIZERS | numbered(wanted.get("optimizers_config"))
    return {
        "params": without_none(params),
        "hnsw_config": HNSW | without_none(wanted.get("hnsw_config") or {}),
        "optimizer_config": optimizers,
        "wal_config": WAL | without_none(wanted.get("wal_config") or {}),
        "quantization_config": cleaned(wanted.get("quantization_config")),
        **without_none({key: cleaned(wanted.get(key)) for key in ("strict_mode_config",)}),
        **without_none({"metadata": wanted.get("metadata")}),
    }


def changed(config: JSON, wanted: JSON) -> JSON:
    """The configuration after ``PATCH``: what is null, or not named, stays. Raises Refused for a vector that it does not have."""
    params = {**config["params"]}
    optimizers = config["optimizer_config"] | numbered(wanted.get("optimizers_config"))
    params |= without_none(wanted.get("params") or {})
    vectors = dense_vectors(params)
    for name, diff in (wanted.get("vectors") or {}).items():
        if name not in vectors:
            raise Refused(400, f"Wrong input: Not existing vector name error: {name}")
        vectors = {**vectors, name: changed_vector(vectors[name], diff)}
    if wanted.get("vectors"):
        params["vectors"] = vectors[""] if is_single(params["vectors"]) else vectors
    for name, diff in (wanted.get("sparse_vectors") or {}).items():
        sparse = params.get("sparse_vectors") or {}
        if name not in sparse:
            raise Refused(400, f"Wrong input: Not existing vector name error: {name}")
        index = (sparse[name].get("index") or {}) | without_none(diff.get("index") or {})
        one = without_none(sparse[name] | without_none(diff) | {"index": index or None})
        params["sparse_vectors"] = sparse | {name: one}
    after = {
        **config,
        "params": params,
        "optimizer_config": optimizers,
        "hnsw_config": config["hnsw_config"] | without_none(wanted.get("hnsw_config") or {}),
        "quantization_config": quantized(config["quantization_config"], wanted.get("quantization_config")),
    }
    if wanted.get("strict_mode_config"):
        after["strict_mode_config"] = (config.get("strict_mode_config") or {}) | without_none(
            wanted["strict_mode_config"]
        )
    if wanted.get("metadata") is not None:
        after["metadata"] = merged(config.get("metadata") or {}, wanted["metadata"])
    return after


def changed_vector(one: JSON, diff: JSON) -> JSON:
    after = one | without_none({key: diff.get(key) for key in ("on_disk", "memory")})
    if diff.get("hnsw_config"):
        after["hnsw_config"] = (one.get("hnsw_config") or {}) | without_none(diff["hnsw_config"])
    after["quantization_config"] = quantized(one.get("quantization_config"), diff.get("quantization_config"))
    return without_none(after)


def quantized(before: JSON | None, diff: Any) -> JSON | None:
    if diff is None:
        return before
    return None if diff == "Disabled" else cleaned(diff)


def numbered(optimizers: JSON | None) -> JSON:
    """Optimizers' settings that are named; ``auto`` threads are none."""
    named = without_none(optimizers or {})
    if named.get("max_optimization_threads") == "auto":
        named["max_optimization_threads"] = None
    return named


def merged(before: JSON, change: JSON) -> JSON:
    """Metadata is merged key by key; null takes a key away."""
    return without_none({**before, **change})


def check_vector(config: JSON, name: str) -> None:
    """Raises Refused where a query names a vector that the collection does not have."""
    params = config["params"]
    there = [*dense_vectors(params), *(params.get("sparse_vectors") or {})]
    if name in there:
        return
    if not there:
        raise Refused(400, "Wrong input: Vectors are not configured in this collection")
    if there == [""]:
        raise Refused(400, f"Wrong input: Vector with name {name} is not configured in this collection")
    names = ", ".join(there)
    if not name:
        needed = "Collection requires specified vector name in the request"
        raise Refused(400, f"Wrong input: {needed}, available names: {names}")
    raise Refused(
        400, f"Wrong input: Vector with name `{name}` is not configured in this collection, available names: {names}"
    )


def is_single(vectors: JSON) -> bool:
    return isinstance(vectors.get("size"), int)


def cleaned(value: Any) -> Any:
    """Without nulls, however deep."""
    if isinstance(value, dict):
        return {key: cleaned(one) for key, one in value.items() if one is not None}
    return value


def with_vector(config: JSON, name: str, wanted: JSON) -> JSON:
    """The configuration with one more vector name. Raises Refused where another one has that name."""
    params = config["params"]
    dense, sparse = dense_vectors(params), params.get("sparse_vectors") or {}
    if "dense" in wanted:
        one = cleaned(wanted["dense"])
        if name in dense:
            same = {key: dense[name].get(key) for key in ("size", "distance", "multivector_config", "datatype")}
            if without_none(same) != one:
                raise Refused(400, f"Wrong input: Vector `{name}` already exists with a different configuration")
            return config
        if name in sparse:
            raise Refused(400, f"Wrong input: Vector `{name}` already exists as a sparse vector")
        return config | {"params": params | {"vectors": {**dense, name: one}}}
    one = cleaned(wanted["sparse"])
    if name in sparse:
        before = {
            "modifier": sparse[name].get("modifier"),
            "datatype": (sparse[name].get("index") or {}).get("datatype"),
        }
        if without_none(before) != one:
            raise Refused(400, f"Wrong input: Sparse vector `{name}` already exists with a different configuration")
        return config
    if name in dense:
        raise Refused(400, f"Wrong input: Vector `{name}` already exists as a dense vector")
    index = {"index": {"datatype": one.pop("datatype")}} if "datatype" in one else {}
    return config | {"params": params | {"sparse_vectors": {**sparse, name: {**index, **one}}}}


def without_vector(config: JSON, name: str) -> JSON:
    """The configuration without that vector name; one that is not there is no error."""
    params = {**config["params"]}
    if not is_single(params["vectors"]):
        params["vectors"] = {key: one for key, one in params["vectors"].items() if key != name}
    if "sparse_vectors" in params:
        params["sparse_vectors"] = {key: one for key, one in params["sparse_vectors"].items() if key != name}
    return config | {"params": params}
