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
HNSW = ("m", "ef_construct", "full_scan_threshold", "max_indexing_threads", "on_disk", "payload_m", "inline_storage")


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
    """The engine's configuration, from a collection's as Qdrant answers it."""
    params = config["params"]
    optimizers = config["optimizer_config"]
    return edge.EdgeConfig(
        vectors={name: dense_params(one, config["hnsw_config"]) for name, one in dense_vectors(params).items()},
        sparse_vectors={name: sparse_params(one) for name, one in (params.get("sparse_vectors") or {}).items()},
        on_disk_payload=params.get("on_disk_payload"),
        hnsw_config=hnsw(config["hnsw_config"]),
        quantization_config=quantization(config.get("quantization_config")),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers.get("deleted_threshold"),
            vacuum_min_vector_number=optimizers.get("vacuum_min_vector_number"),
            default_segment_number=optimizers.get("default_segment_number"),
            max_segment_size=optimizers.get("max_segment_size"),
            indexing_threshold=optimizers.get("indexing_threshold"),
            prevent_unoptimized=optimizers.get("prevent_unoptimized"),
        ),
        max_search_threads=1,
    )


def dense_vectors(params: JSON) -> dict[str, JSON]:
    """Dense vectors by name; the unnamed one is called ``""``."""
    vectors = params.get("vectors") or {}
    return {"": vectors} if "size" in vectors and isinstance(vectors["size"], int) else vectors


def dense_params(one: JSON, whole: JSON) -> edge.EdgeVectorParams:
    multi = one.get("multivector_config")
    return edge.EdgeVectorParams(
        size=one["size"],
        distance=DISTANCES[one["distance"]],
        on_disk=one.get("on_disk"),
        multivector_config=multi and edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        datatype=datatype(one.get("datatype")),
        quantization_config=quantization(one.get("quantization_config")),
        hnsw_config=hnsw(whole | without_none(one["hnsw_config"])) if one.get("hnsw_config") else None,
        memory=memory(one),
    )


def sparse_params(one: JSON) -> edge.EdgeSparseVectorParams:
    index = one.get("index") or {}
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        on_disk=index.get("on_disk"),
        modifier=modifier(one.get("modifier")),
        datatype=datatype(index.get("datatype")),
        memory=memory(index),
    )


def hnsw(config: JSON) -> edge.HnswIndexConfig:
    return edge.HnswIndexConfig(
        **{key: config[key] for key in HNSW if config.get(key) is not None}, memory=memory(config)
    )


def quantization(config: JSON | None) -> Any:
    if not config:
        return None
    kind, wanted = next(iter(config.items()))
    common = {"always_ram": wanted.get("always_ram"), "memory": memory(wanted)}
    if kind == "scalar":
        return edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, quantile=wanted.get("quantile"), **common)
    if kind == "product":
        return edge.ProductQuantizationConfig(getattr(edge.CompressionRatio, wanted["compression"].upper()), **common)
    if kind == "binary":
        encoding, query = wanted.get("encoding"), wanted.get("query_encoding")
        names = {"scalar4bits": "Scalar4Bits", "scalar8bits": "Scalar8Bits"}
        return edge.BinaryQuantizationConfig(
            encoding=encoding and getattr(edge.BinaryQuantizationEncoding, camel(encoding)),
            query_encoding=query and getattr(edge.BinaryQuantizationQueryEncoding, names.get(query, camel(query))),
            **common,
        )
    bits = wanted.get("bits")
    return edge.TurboQuantQuantizationConfig(bits=bits and getattr(edge.TurboQuantBitSize, bits.capitalize()), **common)


def memory(config: JSON) -> edge.Memory | None:
    return MEMORY[config["memory"]] if config.get("memory") else None


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
    return edge.SparseVector(vector["indices"], vector["values"]) if isinstance(vector, dict) else vector


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
