"""The part of verification that searches: the new index against exact search, both stores against each other, and a
sample of rows against their source."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import sql

from tasks.checks import measures
from tasks.checks.measures import Check, Gates, Norms
from tasks.checks.timed_search import GATED, SHOWN, Timed, timed, worked
from tasks.runs import spending
from tasks.runs.artifacts import Tell
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Difference
from tasks.shadows.registry import shadow_of
from tasks.stores.exact_search import distances, exact_search
from tasks.stores.interface import Hits, Source, vectors
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table, read, search

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
            total[0] += measures.norms(batch)
            yield batch

    exact = exact_search(probes, watched(), table.layout.metric, k)
    measured = total[0]
    # A smoke run holds a part of the source, which would search all of it.
    comparable = target.carried and not run.plan.limited
    ef_search = max(40, target.collection.ef_search, k)
    spent = worked(connection, run)

    def searched(ef: int, until: float, least: int) -> tuple[Timed, list[Hits]]:
        tried = timed(lambda q: search(connection, table, q, k, ef), probes, until, least, connection)
        return tried, _measured_exactly(connection, table, probes[: len(tried.hits)], tried.hits)

    # What decides goes first: the time that is left is for what is only shown.
    own, measured_hits = searched(ef_search, GATED.until(spent), GATED.probes)
    our_recall = measures.recall(measured_hits, exact[: len(measured_hits)])
    sweep: list[dict[str, Any]] = [{"ef_search": ef_search, "recall": our_recall, **own.figures}]
    others, until = sorted({*SWEEP} - {ef_search}), SHOWN.until(spent)
    for number, ef in enumerate(others):
        tell((1 + len(sweep)) / (len(SWEEP) + 3))
        now = time.monotonic()
        tried, hits = searched(ef, now + (until - now) / (len(others) - number), SHOWN.probes)
        sweep.append({"ef_search": ef, "recall": measures.recall(hits, exact[: len(hits)]), **tried.figures})
    sweep.sort(key=lambda tried: int(tried["ef_search"]))
    size = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table.identifier.as_string(),)).fetchone()
    assert size
    benchmark: dict[str, Any] = {
        "k": k,
        "ef_search": ef_search,
        "sweep": sweep,
        "pgvector": own.figures,
        "probes": len(probes),
        "table_bytes": size[0],
        "norms": {"lowest": measured.lowest, "mean": measured.mean, "highest": measured.highest},
    }
    found = [
        Check("finite", measured.not_finite == 0, measured.rows, f"{measured.not_finite} not finite", "0"),
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
        ask = partial(source.search, target.collection.name, k=k)
        theirs = timed(ask, probes[: len(own.hits)], GATED.until(spent), GATED.probes)
        asked = len(theirs.hits)
        benchmark["source"] = theirs.figures
        source_recall = measures.recall(
            _measured_exactly(connection, table, probes[:asked], theirs.hits), exact[:asked]
        )
        both_recall = measures.recall(measured_hits[:asked], exact[:asked])
        benchmark |= {"source_recall": source_recall, "overlap": measures.overlap(own.hits[:asked], theirs.hits)}
        found += [
            Check(
                "query parity",
                both_recall >= source_recall - PARITY_SLACK,
                asked,
                f"recall {both_recall:.4f}, source {source_recall:.4f}, overlap {benchmark['overlap']:.4f}",
                f"≥ source − {PARITY_SLACK}",
            ),
            _distances(
                probes[:asked],
                own.hits[:asked],
                theirs.hits,
                measured,
                target,
                benchmark,
                lambda ids: _moved(run, target, ids, known),
            ),
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
    tolerance = 5e-3 if target.place.layout.index_type == "halfvec" else 1e-4
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
    if target.carried:
        fetched = source.fetch(target.collection.name, ours.column("id").to_pylist())
        theirs = dict(zip(fetched.column("id").to_pylist(), vectors(fetched), strict=True))
    else:
        again = spending.embedder_of(run).embed(ours.column("document").to_pylist())
        named = enumerate(ours.column("id").to_pylist())
        theirs = {name: again.vectors[at] for at, name in named if at not in again.rejected}
    there = [i for i, name in enumerate(ours.column("id").to_pylist()) if name in theirs]
    if not there:
        return [Check("row cosine", False, 0, "none of the sample is in the source", f"≥ {gates.min_row_cosine:g}")]
    names = ours.column("id").to_pylist()
    cosine = measures.row_cosine(vectors(ours)[there], np.stack([theirs[names[i]] for i in there]))
    if target.carried:
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
            gate="min_row_cosine",
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


def cut_short(benchmark: dict[str, Any]) -> str | None:
    """A line for the report where there was no time for all of the searches; None where all were made."""
    lines = [*benchmark["sweep"], *([benchmark["source"]] if "source" in benchmark else [])]
    made, wanted = sum(line["searches"] for line in lines), len(lines) * benchmark["probes"]
    if made == wanted:
        return None
    return f"timed searches were cut short, {made:,} of {wanted:,}, so that they do not outlast the rest of the run"


def _common(a: Hits, b: Hits) -> Iterator[tuple[str, float, float]]:
    other = dict(zip(b.ids, b.distances, strict=True))
    return ((i, float(d), float(other[i])) for i, d in zip(a.ids, a.distances, strict=True) if i in other)
