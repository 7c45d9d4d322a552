"""How long a search of new vectors takes by their index and without it, as a run's own report has it."""

import json
import time
from collections.abc import Iterator

from benchmarks import fixtures, texts
from benchmarks.command import vecferry
from benchmarks.figures import Figure

ROWS, DIMENSIONS = 10_000, 1536


def searching(url: str) -> Iterator[Figure]:
    """The 95th percentile of one search at a time, over a live table that the command has taken onto so many dimensions."""
    texts.make_table(url, "docs", ROWS)
    name = f"search-{time.time_ns()}"
    # Hashed words have hardly any near neighbours: an index finds fewer, and looks at more, than of a model's vectors.
    options = ['targets=[{"table": "docs", "text": "content"}]', f"embedder=hashing/{DIMENSIONS}", "gates.min_recall=0"]
    vecferry(
        ["run", "text-384-to-1536", "--run-id", name, *(part for option in options for part in ("-p", option))],
        name,
        url,
    )
    report = fixtures.PLACE.absolute() / "home" / "runs" / name / "report.json"
    (target,) = json.loads(report.read_text())["targets"]
    vecferry(["rollback", name], name, url, keep=True)
    measured = target["benchmark"]
    by_index, without = measured["target"], measured["exact"]
    figures = {
        f"search of {DIMENSIONS} dimensions by the index, p95": (by_index, 50.0, f"ef_search {measured['ef_search']}"),
        f"search of {DIMENSIONS} dimensions without it, p95": (without, None, "every row is read"),
    }
    for what, (latency, limit, note) in figures.items():
        more = f"p50 {latency['p50_ms']:.1f} ms, {latency['searches']} searches, one at a time; {note}"
        yield Figure(what, ROWS, latency["p95_ms"], limit, unit=" ms", note=more)
