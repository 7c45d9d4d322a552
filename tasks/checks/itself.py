"""Whether an item finds itself: embedded once more and searched for, its own row comes first."""

from typing import Any

import numpy as np
import pyarrow as pa

from tasks.checks.fresh_vectors import fresh_vectors
from tasks.checks.gates import Gates
from tasks.checks.measures import Check
from tasks.runs import spending
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.stores.exact_search import distances
from tasks.stores.interface import Records, vectors

ROWS = 30
"""As many are embedded once more: enough to see rows that have each other's vectors, and a model takes a while for an image."""


def itself_checks(run: Run, target: Target[Any], made: Records, gates: Gates) -> list[Check]:
    """Nothing where rows are searched by their like, whose recall says the same. A row that is as near as the row itself, such as
    a copy of its image, counts as it, as near as the gate of row cosine lets two vectors of one item be; an index may miss as
    many as the gate of recall lets it."""
    if target.content.asked == target.content.gives:
        return []
    return [itself_check(run, target, made, gates)]


def itself_check(run: Run, target: Target[Any], made: Records, gates: Gates) -> Check:
    """The share of sampled rows whose item, embedded now, finds the row itself at the first place."""
    wanted = f"≥ {gates.min_recall:g} at place 1"
    batches = [
        batch for batch in made.sample(ROWS, settled=True) if batch.num_rows
    ]  # nothing is being read while the model works
    rows = pa.Table.from_batches(batches).combine_chunks() if batches else None
    documents = rows.column("document").to_pylist() if rows else []
    fresh = fresh_vectors(spending.embedder_of(run), target.content, documents)
    if rows is None or not fresh:
        return Check("self search", False, 0, "no rows to sample", wanted, gate="min_recall")
    ids, stored, there = rows.column("id").to_pylist(), vectors(rows), list(fresh)
    probes = np.stack([fresh[at] for at in there])
    hits = made.search(probes, 1, max(40, target.collection.ef_search))
    own = [
        float(distances(probe[None], stored[at : at + 1], made.metric)[0, 0])
        for at, probe in zip(there, probes, strict=True)
    ]
    slack = 1 - gates.min_row_cosine
    first = [
        bool(hit.ids) and (hit.ids[0] == ids[at] or abs(hit.distances[0] - apart) <= slack * max(1.0, abs(apart)))
        for at, hit, apart in zip(there, hits, own, strict=True)
    ]
    lost = [ids[at] for at, is_first in zip(there, first, strict=True) if not is_first]
    result = f"{sum(first):,} of {len(first):,}" + (f"; not {', '.join(map(repr, lost[:3]))}" if lost else "")
    return Check(
        "self search", sum(first) >= gates.min_recall * len(first), len(first), result, wanted, gate="min_recall"
    )
