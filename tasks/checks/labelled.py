"""How well labelled queries are answered, by the old and by the new vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.base.words import counted
from tasks.checks.benchmark import Ndcg
from tasks.checks.bootstrap import interval, resamples, verdict
from tasks.checks.query_file import named, read_queries
from tasks.embedders.interface import Embedded
from tasks.runs import spending
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Records

NDCG_AT = 10
RESAMPLES = 1_000
"""Bootstrap resamples of the queries for an interval of 95 %."""


def labelled(run: Run, target: Target[Any], old: Records, new: Records) -> tuple[str, Ndcg] | None:
    """nDCG@10 of the run's labelled queries by exact search (Järvelin & Kekäläinen 2002), new and, where the old model is
    named and takes texts, old; as a line and as figures. A query that a model refuses is left out. None where none is left,
    or the new one takes no texts. Raises UsageError for a file of queries that cannot be read."""
    request = run.plan.request
    queries = read_queries(str(request.queries))
    embedded: dict[str, tuple[Embedded, Records]] = {}
    for name, model, records in (("new", request.embedder, new), ("old", request.old_embedder, old)):
        if model and "text" in (embedder := spending.embedder_of(run, model)).takes:
            embedded[name] = embedder.embed([query.text for query in queries]), records
    able = [at for at in range(len(queries)) if not any(at in made.rejected for made, _ in embedded.values())]
    queries = [queries[at] for at in able]
    if "new" not in embedded or not queries:
        return None
    scores: dict[str, np.ndarray] = {}
    for name, (made, records) in embedded.items():
        hits = exact_search(made.vectors[able], records.stream(content=False), records.metric, NDCG_AT)
        names = named(target.content, records, hits)
        answers = zip(hits, queries, strict=True)
        scores[name] = np.array([ndcg([names[i] for i in h.ids], query.grades) for h, query in answers])
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


def ndcg(hits: Sequence[set[str]], grades: dict[str, float]) -> float:
    """Normalized discounted cumulative gain of the first ten, each by its names; 0 where nothing is relevant. An answer that
    several rows are called by, as parts of one image, is gained once."""
    discounts, left = 1 / np.log2(np.arange(2, NDCG_AT + 2)), dict(grades)
    gained = np.array([max((left.pop(name, 0.0) for name in names), default=0.0) for names in hits[:NDCG_AT]])
    best = np.sort(np.array(list(grades.values())))[::-1][:NDCG_AT]
    ideal = float((best * discounts[: len(best)]).sum())
    return float((gained * discounts[: len(gained)]).sum()) / ideal if ideal else 0.0
