"""How models answer the same queries, as the command prints it."""

from collections.abc import Sequence
from dataclasses import asdict

from flows.command.show.terminal import out, print_json
from tasks.checks.labelled import NDCG_AT
from tasks.checks.models_compared import ModelFigures


def show_compared(figures: Sequence[ModelFigures], as_json: bool) -> None:
    """Two lines a model."""
    if as_json:
        print_json({"models": [asdict(one) for one in figures]})
        return
    for one in figures:
        gain = "" if one.gain is None else f", {one.gain:+.3f} against the active model: {one.verdict}"
        out.print(
            f"{one.model}: nDCG@{NDCG_AT} {one.ndcg:.3f} ({one.ndcg_interval.low:.3f} to {one.ndcg_interval.high:.3f}){gain}"
        )
        vectors, indexes = one.storage.vectors / 1e6, one.storage.indexes / 1e6
        out.print(
            f"  p50 {one.p50_ms:.1f} ms, p95 {one.p95_ms:.1f} ms; vectors {vectors:.1f} MB, indexes {indexes:.1f} MB"
        )
