"""The charts of a report."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from tasks.checks import charts
from tasks.checks.benchmark import Benchmark, Latency, OfSource, Tried
from tasks.checks.measures import Norms

LATENCY = Latency(1.0, 2.0, 3.0, 900.0, 200)
BARE = Benchmark(10, 40, (Tried(40, 0.9, LATENCY),), LATENCY, 200, 8192, Norms(2, 0, 0, 1.0, 3.0, 4.0))
SOURCE = OfSource(LATENCY, 0.8, 0.7, ((0.1, 0.2), (0.3, 0.3)))
TITLES = ["Search latency, top 10", "Recall@10 against exact search"]


@pytest.fixture
def undrawn() -> None:
    """Not here: every chart is drawn."""


def words(svg: str) -> set[str]:
    """What is written in a chart: matplotlib draws text as paths, with a comment of what it says."""
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    return {comment.strip() for comment in re.findall(r"<!--(.*?)-->", svg)}


@pytest.mark.parametrize(
    ("benchmark", "says", "silent_on"),
    [
        (BARE, {*TITLES, "p50", "p95", "p99", "target", "ms", "ef_search"}, {"source"}),
        (replace(BARE, source=SOURCE), {*TITLES, "target", "source", "Distances of neighbours that both give"}, set()),
        (replace(BARE, source=replace(SOURCE, distances=((0.0, 0.0),))), {"source"}, set()),
        (replace(BARE, source=replace(SOURCE, distances=())), {"source"}, {"Distances of neighbours that both give"}),
        (replace(BARE, sweep=()), {*TITLES}, {"source"}),
        (replace(BARE, latency=Latency(0.0, 0.0, 0.0, 0.0, 0)), {*TITLES}, {"source"}),
    ],
)
def test_charts(benchmark: Benchmark, says: set[str], silent_on: set[str]) -> None:
    """Latencies, recall over ef_search and, where the source holds the same vectors, its own beside them and the distances of
    both; with few figures, equal ones, or none."""
    written = words(charts.drawn(benchmark))
    assert says <= written
    assert not silent_on & written


@pytest.mark.usefixtures("prefect", "database")
def test_a_reports_page_shows_them(chroma_dir: Callable[..., str], tmp_path: Path) -> None:
    """After a whole run, each target with its own."""
    assert chroma_to_pgvector(chroma={"path": chroma_dir()}, run_id="drawn")["state"] == "verified"
    page = (tmp_path / "home" / "runs" / "drawn" / "report.html").read_text()
    (svg,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert {"Search latency, top 10", "Distances of neighbours that both give"} <= words(svg)
