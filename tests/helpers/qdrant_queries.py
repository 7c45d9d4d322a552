"""Queries: nearest, recommended, fused, ordered and sampled points, as the segment engine takes them."""

from typing import Any

import numpy as np
import qdrant_edge as edge

from tests.helpers.qdrant_config import check_vector
from tests.helpers.qdrant_engine import (
    JSON,
    Refused,
    order_by,
    payload_selector,
    scored,
    search_params,
    sparse_or_dense,
)
from tests.helpers.qdrant_filters import filter_of
from tests.helpers.qdrant_points import checked_id
from tests.helpers.qdrant_storage import Collection, answered

KINDS = ("nearest", "recommend", "order_by", "fusion", "rrf", "sample")


def query(collection: Collection, body: JSON) -> JSON:
    """The points that answer a query, the best first."""
    payload, vector = body.get("with_payload") or False, body.get("with_vector") or False
    limit = 10 if body.get("limit") is None else body["limit"]
    with answered():
        wanted, condition = scoring(collection, body)
        points = collection.shard.query(
            edge.QueryRequest(
                limit=limit,
                offset=body.get("offset") or 0,
                query=wanted,
                prefetches=prefetches(collection, body.get("prefetch")),
                with_vector=vector,
                with_payload=payload_selector(payload),
                filter=condition,
                score_threshold=body.get("score_threshold"),
                params=search_params(body.get("params")),
            )
        )
        return {"points": [scored(point, payload is not False, vector is not False) for point in points]}


def prefetches(collection: Collection, wanted: Any) -> list[edge.Prefetch] | None:
    if not wanted:
        return None
    made = []
    for body in wanted if isinstance(wanted, list) else [wanted]:
        one, condition = scoring(collection, body)
        made.append(
            edge.Prefetch(
                limit=10 if body.get("limit") is None else body["limit"],
                query=one,
                prefetches=prefetches(collection, body.get("prefetch")),
                params=search_params(body.get("params")),
                filter=condition,
                score_threshold=body.get("score_threshold"),
            )
        )
    return made


def scoring(collection: Collection, body: JSON) -> tuple[Any, edge.Filter | None]:
    """What points are scored by, and the filter: a point that is asked with is no answer."""
    wanted, condition = body.get("query"), body.get("filter")
    if wanted is None:
        return None, filter_of(condition)
    kind = next((key for key in wanted if key in KINDS), None) if isinstance(wanted, dict) else None
    if kind == "order_by":
        return order_by(wanted["order_by"]), filter_of(condition)
    if kind == "sample":
        return edge.Sample.Random, filter_of(condition)
    if kind == "fusion":
        return (edge.Fusion.Rrf(2) if wanted["fusion"] == "rrf" else edge.Fusion.Dbsf()), filter_of(condition)
    if kind == "rrf":
        parameters = wanted["rrf"]
        return edge.Fusion.Rrf(parameters.get("k") or 2, parameters.get("weights")), filter_of(condition)
    using = body.get("using") or ""
    check_vector(collection.config, using)
    if kind == "recommend":
        return recommended(collection, wanted["recommend"], using, condition)
    asked = wanted["nearest"] if kind == "nearest" else wanted
    vector, ids = vector_of(collection, asked, using)
    if wanted_mmr := kind == "nearest" and wanted.get("mmr"):
        relevance = 1 - (0.5 if wanted_mmr.get("diversity") is None else wanted_mmr["diversity"])
        candidates = wanted_mmr.get("candidates_limit") or body.get("limit") or 10
        return edge.Mmr(vector, relevance, candidates, using or None), without(condition, ids)
    return edge.Query.Nearest(vector, using or None), without(condition, ids)


def recommended(collection: Collection, wanted: JSON, using: str, condition: JSON | None) -> tuple[Any, Any]:
    positive = [vector_of(collection, one, using) for one in wanted.get("positive") or []]
    negative = [vector_of(collection, one, using) for one in wanted.get("negative") or []]
    ids = [one for _, named in positive + negative for one in named]
    strategy = wanted.get("strategy") or "average_vector"
    if strategy == "average_vector":
        if not positive:
            raise Refused(400, "Wrong input: At least one positive vector ID required with this strategy")
        mean = np.mean([vector for vector, _ in positive], axis=0)
        if negative:
            mean = 2 * mean - np.mean([vector for vector, _ in negative], axis=0)
        return edge.Query.Nearest(mean.tolist(), using or None), without(condition, ids)
    examples = edge.RecommendQuery([vector for vector, _ in positive], [vector for vector, _ in negative])
    make = edge.Query.RecommendBestScore if strategy == "best_score" else edge.Query.RecommendSumScores
    return make(examples, using or None), without(condition, ids)


def vector_of(collection: Collection, asked: Any, using: str) -> tuple[Any, list[int | str]]:
    """A vector to ask with, and the ids of the point that it is of, if it was given by its id."""
    if isinstance(asked, dict) and "indices" not in asked:
        raise NotImplementedError(f"the query {sorted(asked)}")
    if not isinstance(asked, int | str):
        return sparse_or_dense(asked), []
    points = collection.shard.retrieve([checked_id(asked)], False, [using] if using else True)
    if not points:
        raise Refused(404, f"Not found: No point with id {asked} found")
    vector = points[0].vector
    vector = vector.get(using) if isinstance(vector, dict) else vector
    if vector is None:
        raise Refused(400, f"Wrong input: Vector {using} not found for point {asked}")
    return vector, [asked]


def without(condition: JSON | None, ids: list[int | str]) -> edge.Filter | None:
    if not ids:
        return filter_of(condition)
    return edge.Filter(must=[filter_of(condition)] if condition else None, must_not=[edge.HasIdCondition(set(ids))])
