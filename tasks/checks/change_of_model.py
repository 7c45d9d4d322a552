"""What a change of model does to searches: whether the old vectors are what they are said to be, how far old and new
neighbours agree, and which threshold stands for the old one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.base.words import counted
from tasks.checks import measures
from tasks.checks.benchmark import Agreement, Change
from tasks.checks.fresh_vectors import fresh_vectors
from tasks.checks.gates import Gates
from tasks.checks.labelled import labelled
from tasks.checks.labels import label_checks
from tasks.checks.measures import Check
from tasks.checks.threshold import NEIGHBOURS, threshold_of
from tasks.runs import spending
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Hits, Records, vectors

PROBES = 200


@dataclass(frozen=True)
class Compared:
    """What was learnt of one target."""

    checks: list[Check]
    change: Change
    notes: list[str]


def space_checks(run: Run, target: Target[Any], old: Records, new: Records, gates: Gates) -> Compared:
    """Everything here but the old model's row cosine is a report and no gate. Raises UsageError for a file of queries
    that cannot be read."""
    request, checks, change, notes = run.plan.request, list[Check](), Change(), list[str]()
    if request.old_embedder:
        checks.append(_old_model(run, target, old, request.old_embedder, gates))
    before, after = _neighbours(old, new)
    if before:
        shares = [_overlap(a, b, gates.recall_k) for a, b in zip(before, after, strict=True)]
        mean, p5 = float(np.mean(shares)), float(np.percentile(shares, 5))
        change = replace(change, old_new_overlap=Agreement(mean, p5))
        notes.append(
            f"on average, a row keeps {mean:.0%} of its {counted(gates.recall_k, 'nearest neighbour')} when searched by "
            f"the new vectors (5th percentile of {counted(len(shares), 'row')}: {p5:.0%})"
        )
    if request.similarity_threshold is not None and (
        translated := threshold_of(run, target, (old, new), (before, after))
    ):
        change = replace(change, threshold=translated.figures)
        notes.append(translated.line)
    if request.queries and (answered := labelled(run, target, old, new)):
        line, ndcg = answered
        change = replace(change, ndcg=ndcg)
        notes.append(line)
    told = label_checks(old, new, run.plan.limited)
    return Compared([*checks, *told.checks], replace(change, labels=told.labels), [*notes, *told.notes])


def _old_model(run: Run, target: Target[Any], old: Records, model: str, gates: Gates) -> Check:
    """That the old vectors are the named model's and of the documents as they are."""
    lowest, rows = 1.0, 0
    for batch in list(old.sample(gates.sample, settled=True)):  # nothing is being read while the model is asked
        documents = batch.column("document").to_pylist()
        made = fresh_vectors(spending.embedder_of(run, model), target.content, documents)
        if not made:
            continue
        cosine = measures.row_cosine(vectors(batch)[list(made)], np.stack(list(made.values())))
        lowest, rows = min(lowest, float(cosine.min(initial=1.0))), rows + len(made)
    passed = rows > 0 and lowest >= gates.min_row_cosine
    wanted = f"≥ {gates.min_row_cosine:g}"
    return Check("old model", passed, rows, f"lowest {lowest:.6f}", wanted, gate="min_row_cosine")


def _neighbours(old: Records, new: Records) -> tuple[list[Hits], list[Hits]]:
    """The exact neighbours of random rows by their old and by their new vectors, the row itself left out."""
    new_rows = _by_id(new.sample(PROBES, content=False))
    old_rows = _by_id([old.fetch(list(new_rows), content=False)])
    names = [name for name in old_rows if np.any(old_rows[name]) and np.any(new_rows[name])]
    if not names:
        return [], []
    neighbours = []
    for records, rows in ((old, old_rows), (new, new_rows)):
        probes = np.stack([rows[name] for name in names])
        near = exact_search(probes, records.stream(content=False), records.metric, NEIGHBOURS + 1)
        neighbours.append([_without(hits, name) for hits, name in zip(near, names, strict=True)])
    return neighbours[0], neighbours[1]


def _by_id(batches: Iterable[pa.RecordBatch]) -> dict[str, np.ndarray]:
    """Rows without a vector are zero."""
    rows: dict[str, np.ndarray] = {}
    for batch in batches:
        if batch.column("embedding").null_count < batch.num_rows:
            rows |= zip(batch.column("id").to_pylist(), vectors(batch), strict=True)
    return rows


def _without(hits: Hits, name: str) -> Hits:
    kept = [at for at, other in enumerate(hits.ids) if other != name]
    return Hits([hits.ids[at] for at in kept], hits.distances[kept])


def _overlap(before: Hits, after: Hits, k: int) -> float:
    wanted = set(before.ids[:k])
    return len(wanted & set(after.ids[:k])) / len(wanted) if wanted else 1.0
