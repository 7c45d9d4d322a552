"""What a change of model does to searches: whether the old vectors are what they are said to be, how far old and new
neighbours agree, which threshold stands for the old one, and whether labelled queries are answered better or worse."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import sql

from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.checks import measures as checks
from tasks.checks.measures import Check, Gates
from tasks.runs import spending
from tasks.runs.plan import ColumnsRequest, Target
from tasks.runs.run import Run
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Hits, vectors
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table, read

PROBES, NEIGHBOURS, NDCG_AT = 200, 50, 10
RESAMPLES = 1_000
"""Bootstrap resamples of the queries for an interval of 95 %."""


@dataclass(frozen=True)
class Compared:
    """What was found out about one target."""

    checks: list[Check]
    figures: dict[str, Any]
    notes: list[str]


def space_checks(run: Run, connection: Connection, target: Target[Any], table: Table, gates: Gates) -> Compared:
    """Everything here but the old model's row cosine is a report and no gate. Raises UsageError for a file of queries
    that cannot be read."""
    request = run.plan.request
    assert isinstance(request, ColumnsRequest)
    found, figures, notes = list[Check](), dict[str, Any](), list[str]()
    old = target.place.live.records
    if request.old_embedder:
        found.append(_old_model(run, connection, old, table, request.old_embedder, gates))
    before, after = _neighbours(connection, old, table)
    if before:
        shares = [_overlap(a, b, gates.recall_k) for a, b in zip(before, after, strict=True)]
        figures["old_new_overlap"] = {"mean": float(np.mean(shares)), "p5": float(np.percentile(shares, 5))}
        notes.append(
            f"of {gates.recall_k} neighbours by the old vectors {np.mean(shares):.0%} are neighbours by the new ones "
            f"({np.percentile(shares, 5):.0%} for the worst twentieth of {counted(len(shares), 'row')})"
        )
        if request.similarity_threshold is not None:
            line, figures["threshold"] = _threshold(before, after, request.similarity_threshold)
            notes.append(line)
    if request.queries:
        line, figures["ndcg"] = _labelled(run, connection, target, table, request)
        notes.append(line)
    return Compared(found, figures, notes)


def _old_model(run: Run, connection: Connection, old: Table, new: Table, model: str, gates: Gates) -> Check:
    """That the old vectors are the named model's and of the texts as they are."""
    where = sql.SQL("WHERE {} IS NOT NULL AND {} ORDER BY random() LIMIT {}").format(
        sql.SQL(old.column), sql.SQL(new.ours), sql.Literal(gates.sample)
    )
    lowest, looked = 1.0, 0
    for batch in list(read(connection, old, where)):  # no COPY is open while the model is asked
        again = spending.embedder_of(run, model).embed(batch.column("document").to_pylist())
        kept = [row for row in range(batch.num_rows) if row not in again.rejected]
        cosine = checks.row_cosine(vectors(batch)[kept], again.vectors[kept])
        lowest, looked = min(lowest, float(cosine.min(initial=1.0))), looked + len(kept)
    passed = looked > 0 and lowest >= gates.min_row_cosine
    wanted = f"≥ {gates.min_row_cosine:g}"
    return Check("old model", passed, looked, f"{lowest:.6f} lowest", wanted, gate="min_row_cosine")


def _neighbours(connection: Connection, old: Table, new: Table) -> tuple[list[Hits], list[Hits]]:
    """The exact neighbours of random rows by their old and by their new vectors, the row itself left out."""
    chosen = sql.SQL("WHERE {} IS NOT NULL ORDER BY random() LIMIT {}")
    new_rows = _by_id(connection, new, chosen.format(sql.SQL(new.column), sql.Literal(PROBES)))
    these = sql.SQL("WHERE {} = ANY({}) AND {} IS NOT NULL").format(
        sql.SQL(old.key), sql.Literal(list(new_rows)), sql.SQL(old.column)
    )
    old_rows = _by_id(connection, old, these)
    names = [name for name in old_rows if np.any(old_rows[name]) and np.any(new_rows[name])]
    if not names:
        return [], []
    found = []
    for table, rows in ((old, old_rows), (new, new_rows)):
        probes = np.stack([rows[name] for name in names])
        near = exact_search(probes, read(connection, table, content=False), table.layout.metric, NEIGHBOURS + 1)
        found.append([_without(hits, name) for hits, name in zip(near, names, strict=True)])
    return found[0], found[1]


def _by_id(connection: Connection, table: Table, where: sql.Composed) -> dict[str, np.ndarray]:
    rows: dict[str, np.ndarray] = {}
    for batch in read(connection, table, where, content=False):
        rows |= zip(batch.column("id").to_pylist(), vectors(batch), strict=True)
    return rows


def _without(hits: Hits, name: str) -> Hits:
    kept = [at for at, other in enumerate(hits.ids) if other != name]
    return Hits([hits.ids[at] for at in kept], hits.distances[kept])


def _overlap(before: Hits, after: Hits, k: int) -> float:
    wanted = set(before.ids[:k])
    return len(wanted & set(after.ids[:k])) / len(wanted) if wanted else 1.0


def _threshold(before: list[Hits], after: list[Hits], threshold: float) -> tuple[str, dict[str, Any]]:
    """The similarity that lets through as many neighbours by the new vectors as ``threshold`` does by the old ones."""
    old, new = ([1 - h.distances for h in hits] for hits in (before, after))
    share = float((np.concatenate(old) >= threshold).mean())
    if share in (0.0, 1.0):
        how = "all" if share else "none"
        line = (
            f"a similarity threshold of {threshold:g} lets {how} of the old neighbours through: it cannot be translated"
        )
        return line, {"old": threshold, "passing": share}

    def translated(chosen: np.ndarray) -> float:
        passing = (np.concatenate([old[at] for at in chosen]) >= threshold).mean()
        return float(np.quantile(np.concatenate([new[at] for at in chosen]), 1 - passing))

    value = translated(np.arange(len(old)))
    low, high = _interval(translated(chosen) for chosen in _resamples(len(old), 200))
    line = (
        f"a similarity threshold of {threshold:g} becomes {value:.3f} (95 %: {low:.3f} to {high:.3f}); it lets {share:.0%} "
        f"of {NEIGHBOURS} neighbours through"
    )
    return line, {"old": threshold, "new": value, "low": low, "high": high, "passing": share}


def _labelled(
    run: Run, connection: Connection, target: Target[Any], table: Table, request: ColumnsRequest
) -> tuple[str, dict[str, Any]]:
    """nDCG@10 of labelled queries by exact search (Järvelin & Kekäläinen 2002), new and, where the old model is named, old."""
    assert request.embedder
    queries = read_queries(str(request.queries))
    texts = [query for query, _ in queries]
    scores: dict[str, np.ndarray] = {}
    for name, model, place in (
        ("new", request.embedder, table),
        ("old", request.old_embedder, target.place.live.records),
    ):
        if model:
            probes = spending.embedder_of(run, model).embed(texts).vectors
            hits = exact_search(probes, read(connection, place, content=False), place.layout.metric, NDCG_AT)
            scores[name] = np.array([ndcg(h.ids, grades) for h, (_, grades) in zip(hits, queries, strict=True)])
    figures: dict[str, Any] = {
        "queries": len(queries),
        **{name: float(values.mean()) for name, values in scores.items()},
    }
    if "old" not in scores:
        return f"nDCG@{NDCG_AT} of {counted(len(queries), 'labelled query')}: {figures['new']:.3f}", figures
    gain = scores["new"] - scores["old"]
    low, high = _interval(float(gain[chosen].mean()) for chosen in _resamples(len(gain), RESAMPLES))
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference is shown"
    line = (
        f"nDCG@{NDCG_AT} of {counted(len(queries), 'labelled query')}: {figures['old']:.3f} → {figures['new']:.3f}, "
        f"{gain.mean():+.3f} (95 %: {low:+.3f} to {high:+.3f}): {verdict}"
    )
    return line, {**figures, "gain": float(gain.mean()), "low": low, "high": high, "verdict": verdict}


def ndcg(found: Sequence[str], grades: dict[str, float]) -> float:
    """Normalized discounted cumulative gain of the first ten; 0 where nothing is relevant."""
    discounts = 1 / np.log2(np.arange(2, NDCG_AT + 2))
    gained = np.array([grades.get(name, 0.0) for name in found[:NDCG_AT]])
    best = np.sort(np.array(list(grades.values())))[::-1][:NDCG_AT]
    ideal = float((best * discounts[: len(best)]).sum())
    return float((gained * discounts[: len(gained)]).sum()) / ideal if ideal else 0.0


def read_queries(path: str) -> list[tuple[str, dict[str, float]]]:
    """Queries of a file of JSON lines: {"query": text, "relevant": {id: grade} or [ids]}. Raises UsageError."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise UsageError(f"queries: {error}") from error
    found = [_query(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UsageError(f"queries: {path} holds none")
    return found


def _query(path: str, number: int, line: str) -> tuple[str, dict[str, float]]:
    try:
        entry = json.loads(line)
        relevant = entry["relevant"]
        grades = relevant if isinstance(relevant, dict) else dict.fromkeys(relevant, 1.0)
        return str(entry["query"]), {str(name): float(grade) for name, grade in grades.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = '{"query": text, "relevant": {id: grade}}'
        raise UsageError(f"queries: line {number} of {path} is not {wanted} ({error!r})") from error


def _resamples(count: int, times: int) -> Iterator[np.ndarray]:
    chance = np.random.default_rng(0)
    return (chance.integers(0, count, count) for _ in range(times))


def _interval(values: Iterator[float]) -> tuple[float, float]:
    low, high = np.percentile(list(values), [2.5, 97.5])
    return float(low), float(high)
