"""How well several models answer the same labelled queries, how fast, and what their vectors take.

An answer is named by a chunk's id, or by the title of its document.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.base.errors import UsageError
from tasks.checks.bootstrap import interval, resamples, verdict
from tasks.checks.labelled import NDCG_AT, RESAMPLES, ndcg
from tasks.checks.query_file import Query
from tasks.runs.model_figures import Storage


@dataclass(frozen=True)
class Timed:
    """One search: the names of each hit, the nearest first, and the seconds that it took."""

    names: list[set[str]]
    seconds: float


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of a figure's bootstrap resamples."""

    low: float
    high: float


@dataclass(frozen=True)
class ModelFigures:
    """Of one model."""

    model: str
    ndcg: float
    """nDCG@10 (Järvelin and Kekäläinen 2002), 0 to 1."""
    ndcg_interval: Interval
    gain: float | None
    """Over the model that the others are held against; None for that one."""
    gain_interval: Interval | None
    verdict: str | None
    p50_ms: float
    """Of a search whose query vector is there."""
    p95_ms: float
    storage: Storage


Ask = Callable[[str, Sequence[str], int], list[Timed]]
"""Searches by the model of a name for each text, one at a time, for so many chunks."""


def compared(
    queries: Sequence[Query],
    models: Sequence[str],
    ask: Ask,
    storage: Callable[[str], Storage],
    against: str | None = None,
) -> list[ModelFigures]:
    """The figures of each model, those with the highest nDCG first, held ``against`` one of them, or else the first. Raises UsageError
    where there are no models, or no query says which answers are relevant."""
    if not models:
        raise UsageError("no model can be searched: `vecferry models setup MODEL` adds one")
    graded = [query for query in queries if query.grades]
    if not graded:
        raise UsageError("queries: no query of the file has relevant answers")
    texts = [query.text for query in graded]
    answers = {name: ask(name, texts, NDCG_AT) for name in models}
    scores = {
        name: np.array([ndcg(one.names, query.grades) for one, query in zip(answers[name], graded, strict=True)])
        for name in models
    }
    base = against if against in scores else models[0]
    figures = [
        _figures(name, scores[name], scores[base], name == base, answers[name], storage(name)) for name in models
    ]
    return sorted(figures, key=lambda one: -one.ndcg)


def _figures(
    name: str, scores: np.ndarray, base: np.ndarray, is_base: bool, answers: Sequence[Timed], storage: Storage
) -> ModelFigures:
    p50, p95 = (float(x) * 1000 for x in np.percentile([one.seconds for one in answers], [50, 95]))
    gain = scores - base
    of_gain = None if is_base else _interval(gain)
    return ModelFigures(
        name,
        float(scores.mean()),
        _interval(scores),
        None if is_base else float(gain.mean()),
        of_gain,
        verdict(of_gain.low, of_gain.high) if of_gain else None,
        p50,
        p95,
        storage,
    )


def _interval(values: np.ndarray) -> Interval:
    return Interval(*interval(float(values[chosen].mean()) for chosen in resamples(len(values), RESAMPLES)))
