"""The part of verification that searches: the new index against exact search, both stores against each other, and a
sample of rows against their source."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import sql

from tasks import checks, pace, spending
from tasks.artifacts import Tell
from tasks.checks import Check, Gates, Norms
from tasks.difference import Difference
from tasks.embedders.interface import embed
from tasks.exact_search import distances, exact_search
from tasks.plan import CARRIED, Target
from tasks.run import Run
from tasks.shadows.registry import shadow_of
from tasks.stores.connection import Connection
from tasks.stores.interface import Hits, Source, vectors
from tasks.stores.postgres import Table, read, search

QUERIES = 200
SWEEP = (40, 100, 200, 400)
"""hnsw.ef_search values that the report shows recall and latency for; 40 is pgvector's default."""
PARITY_SLACK = 0.02
"""How far below the source's own recall ours may lie: one neighbour in 50 of a random sample of queries."""


def _moved(run: Run, target: Target, ids: list[str], known: Difference) -> set[str]:
    """Those of ``ids`` that agreed when every row was compared, and have changed at the source since."""
    return set(shadow_of(run, target).compare(only=ids).ids) - set(known.ids) if ids else set()


def search_checks(
    run: Run,
    connection: Connection,
    source: Source,
    target: Target,
    table: Table,
    probes: np.ndarray,
    gates: Gates,
    known: Difference,
    tell: Tell,
) -> tuple[Norms, list[Check], dict[str, Any]]:
    k, total = gates.recall_k, [Norms()]

    def watched() -> Iterator[pa.RecordBatch]:
        for batch in read(connection, table, content=False):
            total[0] += checks.norms(batch)
            yield batch

    exact = exact_search(probes, watched(), table.layout.metric, k)
    measured = total[0]
    # A smoke run holds a part of the source, which would search all of it.
    comparable = target.space == CARRIED and not run.plan.limited
    ef_search = max(40, target.collection.ef_search, k)
    sweep: list[dict[str, Any]] = []
    for ef in sorted({*SWEEP, ef_search}):
        tell((1 + len(sweep)) / (len(SWEEP) + 3))
        hits, latencies = _timed(connection, lambda q, ef=ef: search(connection, table, q, k, ef), probes)
        reached = checks.recall(_measured_exactly(connection, table, probes, hits), exact)
        sweep.append({"ef_search": ef, "recall": reached, **_percentiles(latencies)})
        if ef == ef_search:
            ours, our_latencies, our_recall = hits, latencies, reached
    size = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table.identifier.as_string(),)).fetchone()
    assert size
    benchmark: dict[str, Any] = {
        "k": k,
        "ef_search": ef_search,
        "sweep": sweep,
        "pgvector": _percentiles(our_latencies),
        "table_bytes": size[0],
        "norms": {"lowest": measured.lowest, "mean": measured.mean, "highest": measured.highest},
    }
    found = [
        Check("finite", measured.not_finite == 0, measured.rows, f"{measured.not_finite} not finite", "0"),
        Check(
            f"recall@{k}",
            our_recall >= gates.min_recall,
            len(probes),
            f"{our_recall:.4f} at ef_search {ef_search}{_way_out(sweep, our_recall, gates)}",
            f"≥ {gates.min_recall:g}",
        ),
    ]
    if comparable:
        theirs, latencies = _timed(connection, lambda q: source.search(target.collection.name, q, k), probes)
        benchmark["source"] = _percentiles(latencies)
        source_recall = checks.recall(_measured_exactly(connection, table, probes, theirs), exact)
        benchmark |= {"source_recall": source_recall, "overlap": checks.overlap(ours, theirs)}
        found += [
            Check(
                "query parity",
                our_recall >= source_recall - PARITY_SLACK,
                len(ours),
                f"recall {our_recall:.4f}, source {source_recall:.4f}, overlap {benchmark['overlap']:.4f}",
                f"≥ source − {PARITY_SLACK}",
            ),
            _distances(probes, ours, theirs, measured, target, benchmark, lambda ids: _moved(run, target, ids, known)),
        ]
    return measured, found, benchmark


def _way_out(sweep: list[dict[str, Any]], reached: float, gates: Gates) -> str:
    """What a search that looks at more candidates would find, where this one finds too little."""
    if reached >= gates.min_recall:
        return ""
    enough = next((tried for tried in sweep if tried["recall"] >= gates.min_recall), sweep[-1])
    return f", {enough['recall']:.4f} at {enough['ef_search']}"


def _measured_exactly(connection: Connection, table: Table, probes: np.ndarray, hits: list[Hits]) -> list[Hits]:
    """The same hits with exact distances: both stores measure in float32 or in halves, which tears ties apart."""
    ids = sorted({i for h in hits for i in h.ids if "\0" not in i})
    rows: dict[str, np.ndarray] = {}
    for batch in read(
        connection, table, sql.SQL("WHERE {} = ANY({})").format(sql.SQL(table.key), sql.Literal(ids)), content=False
    ):
        rows |= zip(batch.column("id").to_pylist(), vectors(batch), strict=True)
    measured = []
    for probe, hit in zip(probes, hits, strict=True):
        there = [i for i in hit.ids if i in rows]
        matrix = np.stack([rows[i] for i in there]) if there else probe[None, :][:0]
        measured.append(Hits(there, distances(probe[None, :], matrix, table.layout.metric)[0]))
    return measured


def _distances(
    probes: np.ndarray,
    ours: list[Hits],
    theirs: list[Hits],
    norms: Norms,
    target: Target,
    benchmark: dict[str, Any],
    moved: Callable[[list[str]], set[str]],
) -> Check:
    """Distances must agree where both name a row. Rounding grows with what is summed up, not with the sum."""
    pairs, off = [], dict[str, float]()
    for length, a, b in zip(np.linalg.norm(probes.astype(np.float64), axis=1), ours, theirs, strict=True):
        summed = {"cosine": 1.0, "l2": length, "ip": length * norms.highest}[target.collection.metric]
        for name, mine, other in _common(a, b):
            if np.isfinite(other):
                pairs.append((mine, other))
                off[name] = max(off.get(name, 0.0), abs(mine - other) / max(1.0, abs(other), summed))
    tolerance = 5e-3 if target.layout.index_type == "halfvec" else 1e-4
    ignored = moved([name for name, by in off.items() if by > tolerance])
    worst = max((by for name, by in off.items() if name not in ignored), default=0.0)
    benchmark["distances"] = pairs[:300]
    return Check("distances", worst <= tolerance, len(pairs), f"off by {worst:.1e} at most", f"≤ {tolerance:g}")


def sample_check(
    run: Run, source: Source, target: Target, table: Table, gates: Gates, known: Difference
) -> list[Check]:
    """Row cosine of a random sample against its source, or against the same documents embedded anew."""
    with run.connection() as connection:
        where = sql.SQL("WHERE {} IS NOT NULL AND {} ORDER BY random() LIMIT {}").format(
            sql.SQL(table.column), sql.SQL(table.ours), sql.Literal(gates.sample)
        )
        held = list(read(connection, table, where))
    if not held:
        return [Check("row cosine", False, 0, "no rows to sample", f"≥ {gates.min_row_cosine:g}")]
    ours = pa.Table.from_batches(held).combine_chunks()
    if target.space == CARRIED:
        fetched = source.fetch(target.collection.name, ours.column("id").to_pylist())
        theirs = dict(zip(fetched.column("id").to_pylist(), vectors(fetched), strict=True))
    else:
        again = embed(spending.embedder_of(run), ours.column("document").to_pylist())
        named = enumerate(ours.column("id").to_pylist())
        theirs = {name: again.vectors[at] for at, name in named if at not in again.rejected}
    there = [i for i, name in enumerate(ours.column("id").to_pylist()) if name in theirs]
    if not there:
        return [Check("row cosine", False, 0, "none of the sample is in the source", f"≥ {gates.min_row_cosine:g}")]
    names = ours.column("id").to_pylist()
    cosine = checks.row_cosine(vectors(ours)[there], np.stack([theirs[names[i]] for i in there]))
    if target.space == CARRIED:
        low = [names[i] for i, near in zip(there, cosine, strict=True) if near < gates.min_row_cosine]
        moved = _moved(run, target, low, known)
        cosine = cosine[[names[i] not in moved for i in there]]
    lowest = float(cosine.min(initial=1.0))
    return [
        Check(
            "row cosine",
            len(cosine) > 0 and lowest >= gates.min_row_cosine,
            len(cosine),
            f"{lowest:.6f} lowest",
            f"≥ {gates.min_row_cosine:g}",
        )
    ]


def probe_vectors(connection: Connection, table: Table) -> np.ndarray:
    """Vectors of random rows, float32[≤ QUERIES, d], none of them zero."""
    with connection.transaction():
        where = sql.SQL("WHERE {} IS NOT NULL ORDER BY random() LIMIT {}").format(
            sql.SQL(table.column), sql.Literal(QUERIES)
        )
        found = [vectors(batch) for batch in read(connection, table, where, content=False)]
    matrix = np.concatenate(found) if found else np.zeros((0, 0), np.float32)
    return matrix[np.linalg.norm(matrix, axis=1) > 0] if matrix.size else matrix


def _timed(connection: Connection, ask: Any, probes: np.ndarray) -> tuple[list[Hits], list[float]]:
    """One query at a time, as an application asks; the first is asked twice, so that connecting is not counted."""
    ask(probes[:1])
    hits, seconds = [], []
    with pace.turns(connection) as take:
        for row in range(len(probes)):
            with take():
                started = time.perf_counter()
                hits += ask(probes[row : row + 1])
                seconds.append(time.perf_counter() - started)
    return hits, seconds


def _percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p95, p99 = (float(x) * 1000 for x in np.percentile(seconds, [50, 95, 99]))
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "per_second": len(seconds) / sum(seconds)}


def _common(a: Hits, b: Hits) -> Iterator[tuple[str, float, float]]:
    other = dict(zip(b.ids, b.distances, strict=True))
    return ((i, float(d), float(other[i])) for i, d in zip(a.ids, a.distances, strict=True) if i in other)
