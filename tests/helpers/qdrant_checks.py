"""Requests and answers, compared with qdrant-client's own models: a field that these do not know is refused.

Vectors are most of a request and the slowest of all to compare: their numbers are looked at here, and a stand-in of one
number goes to the model.
"""

from functools import cache
from typing import Any

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError
from qdrant_client.http import models

from tests.helpers.qdrant_engine import Refused

REQUESTS: dict[str, Any] = {
    "create_collection": models.CreateCollection,
    "update_collection": models.UpdateCollection,
    "update_aliases": models.ChangeAliasesOperation,
    "create_field_index": models.CreateFieldIndex,
    "create_vector_name": models.VectorNameConfig,
    "recover_from_snapshot": models.SnapshotRecover,
    "get_points": models.PointRequest,
    "upsert_points": models.PointInsertOperations,
    "delete_points": models.PointsSelector,
    "update_vectors": models.UpdateVectors,
    "delete_vectors": models.DeleteVectors,
    "set_payload": models.SetPayload,
    "overwrite_payload": models.SetPayload,
    "delete_payload": models.DeletePayload,
    "clear_payload": models.PointsSelector,
    "batch_update": models.UpdateOperations,
    "scroll_points": models.ScrollRequest,
    "count_points": models.CountRequest,
    "facet": models.FacetRequest,
    "query_points": models.QueryRequest,
    "query_batch_points": models.QueryRequestBatch,
}
ANSWERS: dict[str, Any] = {
    "root": models.VersionInfo,
    "get_collections": models.CollectionsResponse,
    "get_collection": models.CollectionInfo,
    "create_collection": bool,
    "update_collection": bool,
    "delete_collection": bool,
    "update_aliases": bool,
    "collection_exists": models.CollectionExistence,
    "get_collection_aliases": models.CollectionsAliasesResponse,
    "get_collections_aliases": models.CollectionsAliasesResponse,
    "get_optimizations": models.OptimizationsResponse,
    "collection_cluster_info": models.CollectionClusterInfo,
    "cluster_status": models.ClusterStatus,
    "list_snapshots": list[models.SnapshotDescription],
    "create_snapshot": models.SnapshotDescription,
    "delete_snapshot": bool,
    "recover_from_snapshot": bool,
    "get_point": models.Record,
    "get_points": list[models.Record],
    "scroll_points": models.ScrollResult,
    "count_points": models.CountResult,
    "facet": models.FacetResponse,
    "query_points": models.QueryResponse,
    "query_batch_points": list[models.QueryResponse],
    "batch_update": list[models.UpdateResult],
}
UPDATES = (
    "create_field_index",
    "delete_field_index",
    "create_vector_name",
    "delete_vector_name",
    "upsert_points",
    "delete_points",
    "update_vectors",
    "delete_vectors",
    "set_payload",
    "overwrite_payload",
    "delete_payload",
    "clear_payload",
)
ANSWERS |= dict.fromkeys(UPDATES, models.UpdateResult)
NUMBERS = {float, int}
STAND_IN = [0.5]


@cache
def adapter(table: str, operation: str) -> TypeAdapter[Any]:
    return TypeAdapter((REQUESTS if table == "request" else ANSWERS)[operation])


def request_body(operation: str, raw: bytes) -> Any:
    """The body of a request, parsed. Raises Refused for one that the client's models do not accept."""
    if operation not in REQUESTS:
        return None
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"Format error in JSON body: {error}") from None
    try:
        adapter("request", operation).validate_json(orjson.dumps(pared(body)), strict=True, extra="forbid")
    except ValidationError as error:
        raise Refused(400, f"Format error in JSON body: {first(error)}") from None
    return body


def check_answer(operation: str, result: Any) -> None:
    """Raises Refused (500) for an answer of this server that the client's models do not know."""
    if operation not in ANSWERS:
        return
    try:
        text = orjson.dumps(pared(result), option=orjson.OPT_SERIALIZE_NUMPY)
        adapter("answer", operation).validate_json(text, extra="forbid")
    except ValidationError as error:
        raise Refused(500, f"Service internal error: the test server answers wrongly: {first(error)}") from None


def first(error: ValidationError) -> str:
    """The error that tells most: a field too many, where there is one."""
    errors = error.errors(include_url=False, include_input=False)
    one = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    return f"{'.'.join(map(str, one['loc']))}: {one['msg']}"


def pared(value: Any) -> Any:
    """The same with a stand-in for each vector of points."""
    if isinstance(value, list):
        return [pared(one) for one in value] if value and isinstance(value[0], dict) else value
    if not isinstance(value, dict):
        return value
    return {key: PARED.get(key, same)(one) for key, one in value.items()}


def same(value: Any) -> Any:
    return value


def vector(value: Any) -> Any:
    """A stand-in for a vector whose numbers are numbers; anything else goes to the model as it is."""
    if isinstance(value, np.ndarray):
        return STAND_IN
    if isinstance(value, dict):
        return {name: vector(one) for name, one in value.items()} if "indices" not in value else value
    if isinstance(value, list) and value:
        if isinstance(value[0], list | np.ndarray):
            return [vector(one) for one in value]
        return STAND_IN if set(map(type, value)) <= NUMBERS else value
    return value


def vectors(value: Any) -> Any:
    """Those of a batch: a list of them, or a list by name."""
    if isinstance(value, list):
        return [vector(one) for one in value]
    return {name: vectors(one) for name, one in value.items()} if isinstance(value, dict) else value


PARED = {
    "vector": vector,
    "vectors": vectors,
    **dict.fromkeys(("points", "batch", "upsert", "update_vectors", "operations"), pared),
}
