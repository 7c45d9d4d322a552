"""How often a row's nearest other row has the same label, an individual or a species, by the old and by the new vectors."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.base.words import counted
from tasks.checks.benchmark import Gain, Labels, OfLabel
from tasks.checks.bootstrap import interval, resamples, verdict
from tasks.checks.measures import Check
from tasks.stores.exact_search import distances
from tasks.stores.interface import Labelled, Metric, Records, vectors

ROWS, EACH = 2_000, 50
"""Rows that are drawn at most, and those of one label."""
WORST = 10
RESAMPLES = 1_000
FEWEST = 6
"""Labels that a difference can be shown with at 95 %: of five that all gained, a sign test says 2 · 2⁻⁵ = 0.06."""
BLOCK = 256


@dataclass(frozen=True)
class Told:
    """What labels tell of a change of model."""

    checks: list[Check]
    notes: list[str]
    labels: Labels | None = None


def label_checks(old: Records, new: Records, limited: bool) -> Told:
    """Nothing where no label is named. The figures are a report and no gate; but rows with a label there must be, save in a
    smoke run (``limited``), which may hold one of each."""
    drawn = new.labelled(ROWS, EACH)
    if drawn is None:
        return Told([], [])
    ids, before, after = _both(drawn, old, new)
    names, codes = np.unique([drawn.of[name] for name in ids], return_inverse=True)
    if not len(names):
        nothing = f"no two rows with both vectors have the same {drawn.name}"
        failed = Check("labels", False, 0, nothing, "any two rows")
        return Told([] if limited else [failed], [f"{nothing}, so old and new cannot be compared by it"])
    old_rows, new_rows = (ranked(matrix, codes, r.metric) for matrix, r in ((before, old), (after, new)))
    labels = Labels(
        drawn.name,
        len(codes),
        len(names),
        drawn.labels,
        drawn.alone,
        drawn.unlabelled,
        gained(old_rows.top1, new_rows.top1, codes),
        gained(old_rows.precision, new_rows.precision, codes),
        _worst(names.tolist(), codes, old_rows, new_rows),
    )
    check = Check("labels", True, labels.rows, f"top-1 {labels.top1.old:.3f} → {labels.top1.new:.3f}", "no gate")
    return Told([check], list(_lines(labels)), labels)


@dataclass(frozen=True)
class Ranked:
    """Of each row, float64[n]."""

    top1: np.ndarray
    """1 where the nearest other row has its label, else 0."""
    precision: np.ndarray
    """Average precision."""


def ranked(matrix: np.ndarray, codes: np.ndarray, metric: Metric) -> Ranked:
    """How the other rows of float32[n, d] are ranked for each row, where ``codes``, int[n], tell their labels: of each at least two.

    Average precision of a row is the mean, over the R other rows of its label, of the precision at the rank k of each: those of
    the label among the first k, divided by k (Manning, Raghavan and Schütze, Introduction to Information Retrieval, 8.4).
    One that has no distance, such as a zero vector under cosine, is never retrieved, and counts 0. Memory: 256 × n.
    """
    top1, precision, ranks = np.zeros(len(codes)), np.zeros(len(codes)), np.arange(1, len(codes) + 1)
    for at in range(0, len(codes), BLOCK):
        far = distances(matrix[at : at + BLOCK], matrix, metric)
        rows = np.arange(len(far))
        far[~np.isfinite(far)] = np.inf
        far[rows, at + rows] = np.inf  # a row is not its own neighbour
        same = codes[at + rows][:, None] == codes[None, :]
        same[rows, at + rows] = False
        order = np.argsort(far, axis=1, kind="stable")
        hit = np.take_along_axis(same & np.isfinite(far), order, axis=1)
        top1[at + rows] = hit[:, 0]
        precision[at + rows] = (np.cumsum(hit, axis=1) / ranks * hit).sum(axis=1) / same.sum(axis=1)
    return Ranked(top1, precision)


def gained(old: np.ndarray, new: np.ndarray, codes: np.ndarray) -> Gain:
    """The means over rows and their difference, float64[n] each. Rows of one label depend on each other, so the interval of 95 %
    is that of a bootstrap of the labels (Davison and Hinkley, Bootstrap Methods and their Application, 3.8)."""
    rows, gain = np.bincount(codes), np.bincount(codes, new - old)
    low, high = interval(float(gain[few].sum() / rows[few].sum()) for few in resamples(len(rows), RESAMPLES))
    shown = verdict(low, high) if len(rows) >= FEWEST else "too few labels to tell"
    return Gain(float(old.mean()), float(new.mean()), float((new - old).mean()), low, high, shown)


def _both(drawn: Labelled, old: Records, new: Records) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Those that have both vectors, of labels that two of them have, in an order that has nothing to do with their labels, so that
    equal distances are ranked by chance."""
    there = [_by_id(records.fetch(list(drawn.of), content=False)) for records in (old, new)]
    ids = sorted(there[0].keys() & there[1].keys())
    labels, members = np.unique([drawn.of[name] for name in ids], return_counts=True)
    several = set(labels[members > 1].tolist())
    ids = [name for name in ids if drawn.of[name] in several]
    ids = [ids[at] for at in np.random.default_rng(0).permutation(len(ids))]
    before, after = (np.stack([rows[name] for name in ids]) if ids else np.zeros((0, 0)) for rows in there)
    return ids, before, after


def _by_id(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    present = batch.filter(batch.column("embedding").is_valid())
    return dict(zip(present.column("id").to_pylist(), vectors(present), strict=True))


def _worst(names: list[str], codes: np.ndarray, old: Ranked, new: Ranked) -> tuple[OfLabel, ...]:
    """The labels that lose most, by their mean average precision."""
    rows = np.bincount(codes)
    figures = [np.bincount(codes, of) / rows for of in (old.top1, new.top1, old.precision, new.precision)]
    every = [OfLabel(name, int(count), *map(float, of)) for name, count, *of in zip(names, rows, *figures, strict=True)]
    return tuple(sorted(every, key=lambda one: (one.new_map - one.old_map, one.new_map, one.label))[:WORST])


def _lines(labels: Labels) -> list[str]:
    by = f"by {labels.name}, of {counted(labels.rows, 'row')} of {counted(labels.of, 'label')}"
    lines = [
        f"{what} {by}: {g.old:.3f} → {g.new:.3f}, {g.gain:+.3f} (95% interval {g.low:+.3f} to {g.high:+.3f}): {g.verdict}"
        for what, g in (("top-1 accuracy", labels.top1), ("mAP", labels.map))
    ]
    left = [f"{counted(labels.alone, 'label', 'have')} a single row"] if labels.alone else []
    left += [f"{counted(labels.unlabelled, 'row', 'have')} no label"] if labels.unlabelled else []
    return [*lines, *([f"left out by {labels.name}: {' and '.join(left)}"] if left else [])]
