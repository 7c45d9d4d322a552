"""A collection's whole configuration: read as Qdrant's own JSON, made anew from it, and compared.

    {"params", "hnsw_config", "optimizer_config", "wal_config", "quantization_config", "strict_mode_config", "metadata"}

as ``GET /collections/NAME`` answers in ``config``, and beside them "payload_schema": {field: {"data_type", "params"}}. What is
null is left out.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from qdrant_client import models

from tasks.base.errors import FatalError, UsageError
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.errors import AbsentError
from tasks.stores.qdrant.points import path
from tasks.stores.qdrant.shapes import UNNAMED

Configuration = dict[str, Any]
LATER = ("read_fan_out_factor", "read_fan_out_delay_ms")
"""What of ``params`` a collection gets once it is there."""
OWNED = "vecferry"
"""What of a collection's metadata is a run's: {"run_id", "space"}."""
SETTINGS = {
    "hnsw_config": "hnsw_config",
    "wal_config": "wal_config",
    "optimizer_config": "optimizers_config",
    "quantization_config": "quantization_config",
    "strict_mode_config": "strict_mode_config",
    "metadata": "metadata",
}
"""What a configuration calls it → what the call that makes a collection does."""


def info(qdrant: Qdrant, collection: str) -> dict[str, Any]:
    """What Qdrant says of a collection, or of what an alias points to: status, points_count, config, payload_schema, … Raises
    AbsentError where there is none."""
    if qdrant.rest:
        answer: dict[str, Any] = qdrant.rest.get(path(collection))
        return answer
    with qdrant.refused():
        return qdrant.client.get_collection(collection).model_dump(mode="json", exclude_none=True)


def read(qdrant: Qdrant, collection: str) -> Configuration:
    """The configuration. Raises AbsentError where there is no such collection."""
    return of_info(info(qdrant, collection))


def of_info(answer: Mapping[str, Any]) -> Configuration:
    """The configuration in what ``info`` returned."""
    schema = {
        field: {name: value for name, value in index.items() if name != "points"}
        for field, index in (answer.get("payload_schema") or {}).items()
    }
    kept = {name: value for name, value in answer["config"].items() if value is not None}
    return {name: value if name == "metadata" else _filled(value) for name, value in kept.items()} | {
        "payload_schema": schema
    }


def exists(qdrant: Qdrant, collection: str) -> bool:
    """Whether there is a collection, or an alias, of that name."""
    try:
        info(qdrant, collection)
    except AbsentError:
        return False
    return True


def owner(configuration: Mapping[str, Any]) -> str | None:
    """The run that made the collection, by what it wrote into its metadata; None for one of somebody else's."""
    mark = (configuration.get("metadata") or {}).get(OWNED)
    return mark.get("run_id") if isinstance(mark, Mapping) else None


def problems(configuration: Mapping[str, Any]) -> list[str]:
    """Why a collection of this configuration cannot be made anew, a line each."""
    if configuration["params"].get("sharding_method") == "custom":
        return ["its shards are chosen by key (sharding_method: custom), which vecferry does not carry over"]
    return []


def create(qdrant: Qdrant, collection: str, configuration: Mapping[str, Any]) -> None:
    """Makes an empty collection of this configuration, payload indexes included. Raises UsageError where there is something of
    that name already, or no such collection can be made."""
    if reasons := problems(configuration):
        raise UsageError(f"collection {collection} cannot be made: {'; '.join(reasons)}")
    if exists(qdrant, collection):
        raise UsageError(f"collection {collection} already exists at {qdrant.place}")
    body = _body(configuration)
    if qdrant.rest:
        made = qdrant.rest.send("PUT", path(collection), body)
    else:
        request = models.CreateCollection(**body)
        with qdrant.refused():
            made = qdrant.client.create_collection(
                collection, request.vectors, request.sparse_vectors, metadata=request.metadata
            )
    if not made:
        raise FatalError(f"Qdrant at {qdrant.place} did not make collection {collection}")
    complete(qdrant, collection, configuration)


def complete(qdrant: Qdrant, collection: str, configuration: Mapping[str, Any]) -> None:
    """Gives a collection what it cannot be made with: payload indexes, and settings of reads. What it has already stays."""
    if not qdrant.rest:
        return
    if later := {name: value for name, value in configuration["params"].items() if name in LATER}:
        qdrant.rest.send("PATCH", path(collection), {"params": later})
    for field, index in configuration.get("payload_schema", {}).items():
        schema = index.get("params") or index["data_type"]
        qdrant.rest.send("PUT", path(collection, "index"), {"field_name": field, "field_schema": schema}, wait="true")


def resized(configuration: Mapping[str, Any], vector: str, size: int, distance: str | None = None) -> Configuration:
    """The configuration with another size, and distance, of one dense vector; all else of it stays."""
    params = configuration["params"]
    old = params["vectors"] if vector == UNNAMED and "size" in params["vectors"] else params["vectors"][vector]
    new = {**old, "size": size, "distance": distance or old["distance"]}
    vectors = new if old is params["vectors"] else {**params["vectors"], vector: new}
    return {**configuration, "params": {**params, "vectors": vectors}}


def differences(
    wanted: Mapping[str, Any], there: Mapping[str, Any], without: Collection[str] = ("metadata",)
) -> list[str]:
    """Where two configurations differ, 'hnsw_config.m: 16, not 32' each, the first number that of ``there``; what lies at one of
    the paths ``without`` is passed over."""
    one, other = dict(_leaves(wanted)), dict(_leaves(there))
    names = [n for n in sorted(one.keys() | other.keys()) if not any(n == w or n.startswith(f"{w}.") for w in without)]
    return [
        f"{name}: {_shown(other.get(name))}, not {_shown(one.get(name))}"
        for name in names
        if one.get(name) != other.get(name)
    ]


def _body(configuration: Mapping[str, Any]) -> dict[str, Any]:
    params = configuration["params"]
    body = {name: value for name, value in params.items() if name not in LATER}
    return {"vectors": {}} | body | {new: configuration[old] for old, new in SETTINGS.items() if old in configuration}


def _filled(value: Any) -> Any:
    """The JSON without what is null in it."""
    if isinstance(value, dict):
        return {name: _filled(one) for name, one in value.items() if one is not None}
    return [_filled(one) for one in value] if isinstance(value, list) else value


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _leaves(one, f"{name}.{key}" if name else key)
    elif value not in ({}, None):
        yield name, value


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)
