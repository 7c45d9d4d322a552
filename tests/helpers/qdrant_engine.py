"""Qdrant's JSON in the words of its segment engine: a collection's configuration, points, vectors and what is asked of them.

Nothing here is checked again: qdrant_checks has compared every request with the client's models before.
"""

import re
from typing import Any

import numpy as np
import qdrant_edge as edge

from tests.helpers.qdrant_filters import filter_of

JSON = dict[str, Any]
DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}
MEMORY = {"cold": edge.Memory.Cold, "cached": edge.Memory.Cached, "pinned": edge.Memory.Pinned}


class Refused(Exception):
    """What Qdrant answers instead of a result: a status of HTTP and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def refusal(error: Exception) -> Refused:
    """The answer that stands for an error of the engine, with Qdrant's status and beginning."""
    text = str(error)
    if isinstance(error, (TypeError, ValueError, OverflowError)):
        return Refused(400, f"Format error in JSON body: {text.splitlines()[0]}")
    if text.startswith("No point with id"):
        return Refused(404, f"Not found: {text} found")
    if text.startswith("Service runtime error"):
        return Refused(500, f"Service internal error: {text.removeprefix('Service runtime error: ')}")
    return Refused(400, f"Wrong input: {text}")


def camel(name: str) -> str:
    """``two_bits`` as the engine's enums write it: TwoBits. ``turbo8`` is Turbo8."""
    return "".join(part[:1].upper() + part[1:] for part in re.split("_(?=[a-z])", name))


# A collection's configuration.


def edge_config(config: JSON) -> edge.EdgeConfig:
    """The engine's configuration, from a collection's as Qdrant answers it: the vectors. What only an index, an optimizer or a
    disk would need is kept beside it."""
    params = config["params"]
    return edge.EdgeConfig(
        vectors={name: dense_params(one) for name, one in dense_vectors(params).items()},
        sparse_vectors={name: sparse_params(one) for name, one in (params.get("sparse_vectors") or {}).items()},
        max_search_threads=1,
    )


def dense_vectors(params: JSON) -> dict[str, JSON]:
    """Dense vectors by name; the unnamed one is called ``""``."""
    vectors = params.get("vectors") or {}
    return {"": vectors} if isinstance(vectors.get("size"), int) else vectors


def dense_params(one: JSON) -> edge.EdgeVectorParams:
    kind = datatype(one.get("datatype"))
    return edge.EdgeVectorParams(one["size"], DISTANCES[one["distance"]], None, multivector(one), kind)


def multivector(one: JSON) -> edge.MultiVectorConfig | None:
    return edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if one.get("multivector_config") else None


def sparse_params(one: JSON) -> edge.EdgeSparseVectorParams:
    kind = datatype((one.get("index") or {}).get("datatype"))
    return edge.EdgeSparseVectorParams(modifier=modifier(one.get("modifier")), datatype=kind)


def new_vector(name: str, wanted: JSON) -> edge.UpdateOperation:
    """The operation that adds a vector name."""
    if "sparse" in wanted:
        one = wanted["sparse"]
        kind, change = datatype(one.get("datatype")), modifier(one.get("modifier"))
        return edge.UpdateOperation.create_sparse_vector(name, change, kind)
    one = wanted["dense"]
    kind, distance = datatype(one.get("datatype")), DISTANCES[one["distance"]]
    return edge.UpdateOperation.create_dense_vector(name, one["size"], distance, multivector(one), kind)


def datatype(name: str | None) -> edge.VectorStorageDatatype | None:
    return getattr(edge.VectorStorageDatatype, camel(name)) if name else None


def modifier(name: str | None) -> edge.Modifier | None:
    return edge.Modifier.Idf if name == "idf" else None


def without_none(config: JSON) -> JSON:
    return {key: value for key, value in config.items() if value is not None}


def index_schema(schema: str | JSON) -> Any:
    """A payload index's schema: a type's name, or parameters."""
    if isinstance(schema, str):
        return getattr(edge.PayloadSchemaType, camel(schema))
    wanted = without_none(schema)
    kind = wanted.pop("type")
    if "memory" in wanted:
        wanted["memory"] = MEMORY[wanted["memory"]]
    if "tokenizer" in wanted:
        wanted["tokenizer"] = getattr(edge.TokenizerType, camel(wanted["tokenizer"]))
    if unknown := {"stopwords", "stemmer", "scoring"} & wanted.keys():
        raise Refused(501, f"This test server knows no {sorted(unknown)[0]} of a text index")
    return getattr(edge, f"{camel(kind)}IndexParams")(**wanted)


# Points and vectors.


def vector_in(vector: Any) -> Any:
    """A point's vectors as the engine takes them: sparse ones are objects of its own."""
    if isinstance(vector, dict):
        return {name: sparse_or_dense(one) for name, one in vector.items()}
    return vector


def sparse_or_dense(vector: Any) -> Any:
    if not isinstance(vector, dict):
        return vector
    pairs = sorted(zip(vector["indices"], vector["values"], strict=True))  # the engine counts on their order
    return edge.SparseVector([index for index, _ in pairs], [value for _, value in pairs])


def vector_out(vector: Any) -> Any:
    """A point's vectors as Qdrant answers them: single precision, as few digits as tell it apart."""
    if isinstance(vector, dict):
        return {name: vector_out(one) for name, one in vector.items()}
    if isinstance(vector, edge.SparseVector):
        return {"indices": vector.indices, "values": np.asarray(vector.values, np.float32)}
    return np.asarray(vector, np.float32)


def record(point: Any, with_payload: bool, with_vector: bool) -> JSON:
    """A point that was read; one without a vector answers an empty map."""
    answer: JSON = {"id": point_id(point.id)}
    if with_payload:
        answer["payload"] = point.payload
    if with_vector:
        answer["vector"] = vector_out(point.vector)
    if point.order_value is not None:
        answer["order_value"] = point.order_value
    return answer


def scored(point: Any, with_payload: bool, with_vector: bool) -> JSON:
    answer = record(point, with_payload, with_vector)
    return {"id": answer.pop("id"), "version": point.version, "score": point.score, **answer}


def point_id(identity: Any) -> int | str:
    return identity if isinstance(identity, int) else str(identity)


def payload_selector(wanted: Any) -> Any:
    """What of the payload is asked for: all, nothing, keys, or all but some keys."""
    if isinstance(wanted, dict):
        if "include" in wanted:
            return edge.PayloadSelector.Include(wanted["include"])
        return edge.PayloadSelector.Exclude(wanted["exclude"])
    return wanted


def order_by(wanted: str | JSON) -> edge.OrderBy:
    if isinstance(wanted, str):
        return edge.OrderBy(wanted)
    direction = wanted.get("direction")
    return edge.OrderBy(
        wanted["key"], direction and getattr(edge.Direction, direction.capitalize()), wanted.get("start_from")
    )


def update_mode(name: str | None) -> edge.UpdateMode | None:
    return getattr(edge.UpdateMode, camel(name)) if name else None


def search_params(wanted: JSON | None) -> edge.SearchParams | None:
    if not wanted:
        return None
    quantized, acorn, idf = wanted.get("quantization"), wanted.get("acorn"), wanted.get("idf")
    return edge.SearchParams(
        hnsw_ef=wanted.get("hnsw_ef"),
        exact=bool(wanted.get("exact")),
        quantization=quantized and edge.QuantizationSearchParams(**without_none(quantized)),
        indexed_only=bool(wanted.get("indexed_only")),
        acorn=acorn and edge.AcornSearchParams(**without_none(acorn)),
        idf=edge.IdfParams(filter_of(idf["corpus"])) if isinstance(idf, dict) else None,
    )
