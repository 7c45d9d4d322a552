"""Labelled queries: how they are written, and how well they are answered."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.checks.benchmark import Ndcg
from tasks.checks.bootstrap import interval, resamples, verdict
from tasks.runs import spending
from tasks.runs.run import Run
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Records

NDCG_AT = 10
RESAMPLES = 1_000
"""Bootstrap resamples of the queries for an interval of 95 %."""


def labelled(run: Run, old: Records, new: Records) -> tuple[str, Ndcg]:
    """nDCG@10 of the run's labelled queries by exact search (Järvelin & Kekäläinen 2002), new and, where the old model is
    named, old; as a line and as figures. Raises UsageError for a file of queries that cannot be read."""
    request = run.plan.request
    queries = read_queries(str(request.queries))
    texts = [query for query, _ in queries]
    scores: dict[str, np.ndarray] = {}
    for name, model, records in (("new", request.embedder, new), ("old", request.old_embedder, old)):
        if model:
            probes = spending.embedder_of(run, model).embed(texts).vectors
            hits = exact_search(probes, records.stream(content=False), records.metric, NDCG_AT)
            scores[name] = np.array([ndcg(h.ids, grades) for h, (_, grades) in zip(hits, queries, strict=True)])
    after = float(scores["new"].mean())
    if "old" not in scores:
        line = f"nDCG@{NDCG_AT} of {counted(len(queries), 'labelled query')}: {after:.3f}"
        return line, Ndcg(len(queries), after)
    before = float(scores["old"].mean())
    gain = scores["new"] - scores["old"]
    low, high = interval(float(gain[chosen].mean()) for chosen in resamples(len(gain), RESAMPLES))
    shown = verdict(low, high)
    line = (
        f"nDCG@{NDCG_AT} of {counted(len(queries), 'labelled query')}: {before:.3f} → "
        f"{after:.3f}, {gain.mean():+.3f} (95% interval {low:+.3f} to {high:+.3f}): {shown}"
    )
    return line, Ndcg(len(queries), after, before, float(gain.mean()), low, high, shown)


def ndcg(ids: Sequence[str], grades: dict[str, float]) -> float:
    """Normalized discounted cumulative gain of the first ten; 0 where nothing is relevant."""
    discounts = 1 / np.log2(np.arange(2, NDCG_AT + 2))
    gained = np.array([grades.get(name, 0.0) for name in ids[:NDCG_AT]])
    best = np.sort(np.array(list(grades.values())))[::-1][:NDCG_AT]
    ideal = float((best * discounts[: len(best)]).sum())
    return float((gained * discounts[: len(gained)]).sum()) / ideal if ideal else 0.0


def read_queries(path: str) -> list[tuple[str, dict[str, float]]]:
    """Queries of a file of JSON lines: {"query": text, "relevant": {id: grade} or [ids]}. Raises UsageError."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise UsageError(f"queries: {error}") from error
    queries = [_query(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not queries:
        raise UsageError(f"queries: {path} holds no queries")
    return queries


def _query(path: str, number: int, line: str) -> tuple[str, dict[str, float]]:
    try:
        entry = json.loads(line)
        relevant = entry["relevant"]
        grades = relevant if isinstance(relevant, dict) else dict.fromkeys(relevant, 1.0)
        return str(entry["query"]), {str(name): float(grade) for name, grade in grades.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = '{"query": text, "relevant": {id: grade}}'
        raise UsageError(f"queries: line {number} of {path} is not {wanted} ({error!r})") from error
