"""The part of verification that searches: the new index against exact search, and both stores against each other."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.base.progress import Tell
from tasks.base.words import agreeing, counted
from tasks.checks import measures
from tasks.checks.benchmark import Benchmark, OfSource, Tried
from tasks.checks.gates import Gates
from tasks.checks.measures import Check, Norms
from tasks.checks.moved import moved
from tasks.checks.timed_search import GATED, SHOWN, Timed, timed
from tasks.runs.figures import worked
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Difference
from tasks.stores.exact_search import distances, exact_search
from tasks.stores.interface import Hits, Metric, Records, vectors

QUERIES = 200
SWEEP = (40, 100, 200, 400)
"""hnsw.ef_search values that the report shows recall and latency for; 40 is pgvector's default."""
READ_AT_ONCE = 200_000
"""Rows of a table that is searched without its index too, for comparison: a second or so a search."""
PARITY_SLACK = 0.02
"""How far below the source's own recall ours may lie: one neighbour in 50 of a random sample of queries."""


@dataclass(frozen=True)
class Searched:
    """What the searches of one target came to."""

    checks: list[Check]
    norms: Norms
    benchmark: Benchmark


def search_checks(
    run: Run, target: Target[Any], made: Records, probes: np.ndarray, gates: Gates, known: Difference, tell: Tell
) -> Searched:
    """The new index against exact search for ``probes``, float32[n, d], and where both stores hold the same vectors against
    the source's own; ``known`` is what comparing every row has come to."""
    k, total = gates.recall_k, [Norms()]

    def watched() -> Iterator[pa.RecordBatch]:
        for batch in made.stream(content=False):
            total[0] += measures.norms(batch)
            yield batch

    exact = exact_search(probes, watched(), made.metric, k)
    measured = total[0]
    # A smoke run holds a part of the source, which would search all of it.
    comparable = target.carried and not run.plan.limited
    ef_search = max(40, target.collection.ef_search, k)
    spent = worked(run)

    def searched(effort: int, until: float, least: int) -> tuple[Timed, list[Hits]]:
        tried = timed(lambda q: made.search(q, k, effort), probes, until, least, made.turns())
        return tried, _measured_exactly(made, probes[: len(tried.hits)], tried.hits)

    # What decides goes first: the time that is left is for what is only shown.
    own, measured_hits = searched(ef_search, GATED.until(spent), GATED.probes)
    our_recall = measures.recall(measured_hits, exact[: len(measured_hits)])
    sweep = [Tried(ef_search, our_recall, own.latency)]
    others, over = sorted({*SWEEP} - {ef_search}), SHOWN.until(spent)

    def share(parts: int) -> float:
        """When one of the parts that are left is to end."""
        return (now := time.monotonic()) + (over - now) / parts

    for number, effort in enumerate(others):
        tell((1 + len(sweep)) / (len(SWEEP) + 3))
        tried, hits = searched(effort, share(len(others) + 1 - number), SHOWN.probes)
        sweep.append(Tried(effort, measures.recall(hits, exact[: len(hits)]), tried.latency))
    exactly = None
    if measured.rows <= READ_AT_ONCE:
        ask_all = partial(made.search, k=k, effort=0)
        # One will do where each takes a second, and the rest after it four.
        exactly = timed(ask_all, probes, share(1), 1, made.turns()).latency
    sweep.sort(key=lambda tried: tried.ef_search)
    benchmark = Benchmark(k, ef_search, tuple(sweep), own.latency, len(probes), made.size(), measured, exactly)
    checks = [
        Check("NaN or infinity", measured.not_finite == 0, measured.rows, f"{measured.not_finite:,}", "0"),
        Check(
            f"recall@{k}",
            our_recall >= gates.min_recall,
            len(own.hits),
            f"{our_recall:.4f} at ef_search {ef_search}{_way_out(sweep, our_recall, gates)}",
            f"≥ {gates.min_recall:g}",
            gate="min_recall",
        ),
    ]
    if comparable:
        ask = partial(run.records(target).search, k=k)
        theirs = timed(ask, probes[: len(own.hits)], GATED.until(spent), GATED.probes)
        asked = len(theirs.hits)
        source_recall = measures.recall(_measured_exactly(made, probes[:asked], theirs.hits), exact[:asked])
        both_recall = measures.recall(measured_hits[:asked], exact[:asked])
        overlap = measures.overlap(own.hits[:asked], theirs.hits)
        parity = Check(
            "query parity",
            both_recall >= source_recall - PARITY_SLACK,
            asked,
            f"recall {both_recall:.4f}, source {source_recall:.4f}, overlap {overlap:.4f}",
            f"≥ source − {PARITY_SLACK}",
        )
        apart = _apart(probes[:asked], own.hits[:asked], theirs.hits, measured, made.metric)
        source = OfSource(theirs.latency, source_recall, overlap, tuple(apart.pairs[:300]))
        benchmark = replace(benchmark, source=source)
        checks += [parity, _distances(apart, made.distance_tolerance, lambda ids: moved(run, target, ids, known))]
    return Searched(checks, measured, benchmark)


def _way_out(sweep: list[Tried], reached: float, gates: Gates) -> str:
    """What a search that looks at more candidates would find, where this one finds too little."""
    if reached >= gates.min_recall:
        return ""
    enough = next((tried for tried in sweep if tried.recall >= gates.min_recall), sweep[-1])
    return f", {enough.recall:.4f} at {enough.ef_search}"


def _measured_exactly(made: Records, probes: np.ndarray, hits: list[Hits]) -> list[Hits]:
    """The same hits with exact distances: both stores measure in float32 or in halves, which tears ties apart."""
    batch = made.fetch(sorted({i for h in hits for i in h.ids}), content=False)
    rows = dict(zip(batch.column("id").to_pylist(), vectors(batch), strict=True))
    measured = []
    for probe, hit in zip(probes, hits, strict=True):
        there = [i for i in hit.ids if i in rows]
        matrix = np.stack([rows[i] for i in there]) if there else probe[None, :][:0]
        measured.append(Hits(there, distances(probe[None, :], matrix, made.metric)[0]))
    return measured


@dataclass(frozen=True)
class Apart:
    """How far the distances of two stores lie apart, of the rows that both name."""

    pairs: list[tuple[float, float]]
    off: dict[str, float]
    """Row → the largest difference, relative to what was summed up."""


def _apart(probes: np.ndarray, new: list[Hits], source: list[Hits], norms: Norms, metric: Metric) -> Apart:
    """Rounding grows with what is summed up, not with the sum."""
    apart = Apart([], {})
    for length, a, b in zip(np.linalg.norm(probes.astype(np.float64), axis=1), new, source, strict=True):
        summed = {"cosine": 1.0, "l2": length, "ip": length * norms.highest}[metric]
        for name, distance, other in _common(a, b):
            if np.isfinite(other):
                apart.pairs.append((distance, other))
                relative = abs(distance - other) / max(1.0, abs(other), summed)
                apart.off[name] = max(apart.off.get(name, 0.0), relative)
    return apart


def _distances(apart: Apart, tolerance: float, changed: Callable[[list[str]], set[str]]) -> Check:
    """Distances must agree where both name a row, save for rows that have ``changed`` meanwhile."""
    ignored = changed([name for name, by in apart.off.items() if by > tolerance])
    worst = max((by for name, by in apart.off.items() if name not in ignored), default=0.0)
    return Check("distances", worst <= tolerance, len(apart.pairs), f"off by at most {worst:.1e}", f"≤ {tolerance:g}")


def probe_vectors(made: Records) -> np.ndarray:
    """Vectors of random rows, float32[≤ QUERIES, d], none of them zero."""
    sampled = [vectors(batch) for batch in made.sample(QUERIES, content=False)]
    matrix = np.concatenate(sampled) if sampled else np.zeros((0, 0), np.float32)
    return matrix[np.linalg.norm(matrix, axis=1) > 0] if matrix.size else matrix


def cut_short(benchmark: Benchmark) -> list[str]:
    """A line for the report where there was no time for all of the searches."""
    lines = [tried.latency for tried in benchmark.sweep]
    lines += [benchmark.source.latency] if benchmark.source else []
    made, wanted = sum(line.searches for line in lines), len(lines) * benchmark.probes
    if made == wanted:
        return []
    return [
        f"only {made:,} of {counted(wanted, 'timed search')} {agreeing(made, 'were')} made, so that they "
        "do not outlast the rest of the run"
    ]


def _common(a: Hits, b: Hits) -> Iterator[tuple[str, float, float]]:
    other = dict(zip(b.ids, b.distances, strict=True))
    return ((i, float(d), float(other[i])) for i, d in zip(a.ids, a.distances, strict=True) if i in other)
