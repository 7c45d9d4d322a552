"""Which threshold of similarity stands for the old one: it is translated on the scores that the application gets."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.base.words import counted, plural
from tasks.checks.benchmark import Threshold
from tasks.checks.bootstrap import interval, resamples
from tasks.checks.query_file import read_queries
from tasks.runs import spending
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Hits, Records

NEIGHBOURS = 50
RESAMPLES = 200


@dataclass(frozen=True)
class Translated:
    """What a threshold becomes, or why it is not told."""

    line: str
    figures: Threshold | None = None


def threshold_of(
    run: Run, target: Target[Any], records: tuple[Records, Records], neighbours: tuple[list[Hits], list[Hits]]
) -> Translated | None:
    """The run's threshold by the new vectors, of ``records`` old and new. Where rows are searched by their like it is taken from
    ``neighbours`` of rows, old and new, and None where there are none; else from the run's queries by both models. Raises
    UsageError for a file of queries that cannot be read."""
    content, threshold = target.content, float(run.plan.request.similarity_threshold or 0)
    if content.asked == content.gives:
        before, after = neighbours
        return translated(before, after, threshold, f"{NEIGHBOURS} nearest neighbours") if before else None
    things = plural(2, content.gives)
    if why := _untold(run, target):
        return Translated(
            f"the similarity threshold {threshold:g} of the old vectors cannot be translated: scores of "
            f"{plural(2, content.asked)} and {things} lie elsewhere than those of stored {things}, and {why}"
        )
    texts = [query.text for query in read_queries(str(run.plan.request.queries))]
    models = (run.plan.request.old_embedder, run.plan.request.embedder)
    embedded = [spending.embedder_of(run, model).embed(texts) for model in models]
    able = [at for at in range(len(texts)) if not any(at in one.rejected for one in embedded)]
    before, after = (
        exact_search(made.vectors[able], one.stream(content=False), one.metric, NEIGHBOURS) if able else []
        for made, one in zip(embedded, records, strict=True)
    )
    most = max((len(hits.ids) for hits in before), default=0)
    among = f"{most} nearest {things} of {counted(len(able), 'query')}"
    return (
        translated(before, after, threshold, among)
        if any(h.ids for h in before) and any(h.ids for h in after)
        else None
    )


def _untold(run: Run, target: Target[Any]) -> str | None:
    """Why both models cannot be asked what the application asks."""
    request, asked = run.plan.request, plural(2, target.content.asked)
    lacking = [name for name in ("queries", "old_embedder") if not getattr(request, name)]
    if lacking:
        return f"the run has {' and '.join(f'no `{name}`' for name in lacking)}"
    models = [str(name) for name in (request.old_embedder, request.embedder)]
    unable = [name for name in models if target.content.asked not in spending.embedder_of(run, name).takes]
    return f"{' and '.join(unable)} cannot embed {asked}" if unable else None


def translated(before: list[Hits], after: list[Hits], threshold: float, among: str) -> Translated:
    """The similarity that lets through as many of ``after`` as ``threshold`` does of ``before``."""
    old, new = ([1 - h.distances for h in hits] for hits in (before, after))
    share = float((np.concatenate(old) >= threshold).mean())
    if share in (0.0, 1.0):
        passing = "all" if share else "none"
        line = (
            f"the similarity threshold {threshold:g} lets {passing} of the old neighbours through, so it "
            "cannot be translated"
        )
        return Translated(line, Threshold(threshold, share))

    def at(chosen: np.ndarray) -> float:
        passing = (np.concatenate([old[i] for i in chosen]) >= threshold).mean()
        return float(np.quantile(np.concatenate([new[i] for i in chosen]), 1 - passing))

    value = at(np.arange(len(old)))
    low, high = interval(at(chosen) for chosen in resamples(len(old), RESAMPLES))
    line = (
        f"the similarity threshold {threshold:g} of the old vectors becomes {value:.3f} (95% interval "
        f"{low:.3f} to {high:.3f}); each lets {share:.0%} of the {among} through"
    )
    return Translated(line, Threshold(threshold, share, value, low, high))
