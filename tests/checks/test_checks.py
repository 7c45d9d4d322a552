"""The pure functions that verification is made of."""

import ast
import json
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from flows.command.show.run import show_checks
from tasks import verify
from tasks.base.errors import VerificationRefused
from tasks.checks import measures, report
from tasks.checks.benchmark import Agreement, Benchmark, Change, Latency, Ndcg, OfSource, Threshold, Tried
from tasks.checks.measures import Check, Norms
from tasks.checks.report import TargetReport, Work
from tasks.runs.plan import Plan, Request
from tasks.runs.run import Run
from tasks.runs.spending import Spending
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Hits, Metric, records, vector_column, vectors
from tasks.verify import Verification

quick = settings(max_examples=80, deadline=None, derandomize=True, database=None)


def hits(distances: list[float], ids: str = "abcdefgh") -> Hits:
    return Hits(list(ids[: len(distances)]), np.array(distances, float))


def batch(matrix: np.ndarray, present: np.ndarray | None = None, start: int = 0) -> pa.RecordBatch:
    ids = pa.array([f"row-{start + i:03d}" for i in range(len(matrix))])
    columns = [ids, *(pa.nulls(len(matrix), pa.string()) for _ in range(3)), vector_column(matrix, present)]
    return pa.RecordBatch.from_arrays(columns, schema=records(matrix.shape[1]))


@quick
@given(
    metric=st.sampled_from(["cosine", "l2", "ip"]),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_exact_search_is_brute_force(metric: Metric, sizes: list[int], k: int, seed: int) -> None:
    """Over batches of any size, with absent, zero and equal vectors, it finds what sorting all of them finds."""
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    matrix = rng.integers(-2, 3, (total, 3)).astype(np.float32)  # few values: many ties, and some zero vectors
    present = rng.random(total) > 0.2
    queries = rng.standard_normal((4, 3)).astype(np.float32)
    starts = np.cumsum([0, *sizes])
    parts = [batch(matrix[a:b], present[a:b], a) for a, b in pairwise(starts)]
    for query, result in zip(queries, exact_search(queries, parts, metric, k), strict=True):
        truth = {f"row-{i:03d}": one(query, matrix[i], metric) for i in range(total) if present[i]}
        truth = {i: d for i, d in truth.items() if d is not None}
        np.testing.assert_allclose(result.distances, sorted(truth.values())[:k], atol=1e-9)
        np.testing.assert_allclose(result.distances, [truth[i] for i in result.ids], atol=1e-9)
        assert len(set(result.ids)) == len(result.ids)


@quick
@given(
    metric=st.sampled_from(["cosine", "l2", "ip"]),
    scale=st.sampled_from([1e-30, 1e-18, 1.0, 1e18, 1e30]),
    spread=st.sampled_from([0.0, 1e-7, 1e-4, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_exact_search_beyond_what_float32_tells_apart(metric: Metric, scale: float, spread: float, seed: int) -> None:
    """Rows nearer to each other than float32 can tell, or so long or short that their squares are lost, are ranked right."""
    rng, k = np.random.default_rng(seed), 5
    matrix = (scale * (1 + spread * rng.standard_normal((120, 24)))).astype(np.float32)
    queries = (scale * (1 + spread * rng.standard_normal((3, 24)))).astype(np.float32)
    parts = [batch(matrix[a : a + 40], start=a) for a in (0, 40, 80)]
    size = np.linalg.norm(queries[0].astype(float))
    unit = {"cosine": 1.0, "l2": size, "ip": size**2}[metric]
    for query, result in zip(queries, exact_search(queries, parts, metric, k), strict=True):
        truth = [one(query, row, metric) for row in matrix]
        nearest = np.sort(np.array(truth, float))[:k]
        # The definition itself rounds: a difference of squares of l2, 1 less a cosine.
        np.testing.assert_allclose(result.distances / unit, nearest / unit, atol=3e-8 if metric == "l2" else 1e-14)
        assert len(set(result.ids)) == k


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_exact_search_among_rows_that_are_about_equally_near(metric: Metric) -> None:
    """Its memory does not grow with the pairs that have to be measured one by one, and it ranks them right."""
    rng, k = np.random.default_rng(5), 10
    page = batch((1 + 1e-3 * rng.standard_normal((500, 512))).astype(np.float32))
    queries = (1 + 1e-3 * rng.standard_normal((100, 512))).astype(np.float32)
    tracemalloc.start()
    try:
        results = exact_search(queries, [page], metric, k)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6, "all pairs are 50,000 × 512 components, twice: 410 MB"
    matrix = vectors(page)
    for query, result in zip(queries[:3], results, strict=False):
        np.testing.assert_allclose(
            result.distances, np.sort([one(query, row, metric) for row in matrix])[:k], atol=1e-7
        )


def one(query: np.ndarray, row: np.ndarray, metric: Metric) -> float | None:
    """The distance of two vectors, by its definition."""
    q, r = query.astype(float).tolist(), row.astype(float).tolist()
    dot = sum(a * b for a, b in zip(q, r, strict=True))
    if metric == "ip":
        return -dot
    if metric == "l2":
        return sum((a - b) ** 2 for a, b in zip(q, r, strict=True)) ** 0.5
    lengths = sum(a * a for a in q) ** 0.5 * sum(b * b for b in r) ** 0.5
    return 1 - dot / lengths if lengths else None


def test_recall_counts_what_is_near_enough() -> None:
    """The share of the k nearest that were found, whatever their order and their ids."""
    exact = [hits([0.1, 0.2, 0.3, 0.4])]
    assert measures.recall([hits([0.1, 0.2, 0.3, 0.4])], exact) == 1
    assert measures.recall([hits([0.1, 0.2, 0.5, 0.6])], exact) == 0.5
    assert measures.recall([hits([0.1])], exact) == 0.25
    assert measures.recall([hits([])], exact) == 0
    assert measures.recall([hits([0.1]), hits([0.1, 0.2, 0.3, 0.4])], exact * 2) == 0.625


def test_ties_have_no_right_answer() -> None:
    """Of several rows as near as the k-th true one, any will do, and more of them count no more."""
    exact = [hits([0.1, 0.5])]
    assert measures.recall([hits([0.1, 0.5], ids="az")], exact) == 1
    assert measures.recall([hits([0.5, 0.5], ids="yz")], exact) == 1
    assert measures.recall([hits([0.1, 0.5, 0.5], ids="ayz")], exact) == 1
    assert measures.recall([hits([0.1, 0.5000001])], exact) == 1, "within float32"
    assert measures.recall([hits([0.1, 0.51])], exact) == 0.5
    assert measures.recall([hits([-1e6, -9.999999e5])], [hits([-1e6, -1e6])]) == 1, "relative to a large product"


def test_recall_and_overlap_of_nothing_are_errors() -> None:
    """A check that looked at nothing must not read as a good one."""
    for nothing in ([], [hits([])]):
        with pytest.raises(ValueError, match="of no queries"):
            measures.recall(nothing, nothing)
        with pytest.raises(ValueError, match="of no queries"):
            measures.overlap(nothing, nothing)


def test_overlap_compares_ids() -> None:
    """The share of the longer answer that both name."""
    assert measures.overlap([hits([1, 2, 3])], [hits([7, 8, 9])]) == 1
    assert measures.overlap([hits([1, 2], ids="ab")], [hits([1, 2, 3, 4], ids="bcde")]) == 0.25
    assert measures.overlap([hits([1], ids="a")], [hits([])]) == 0


def test_row_cosine() -> None:
    """Row by row: 1 for the same direction, −1 for the opposite, 0 where only one of them is zero, 1 where both are."""
    left = np.array([[1, 0], [1, 0], [3, 4], [0, 0], [0, 0], [1e-30, 0]], np.float32)
    right = np.array([[2, 0], [-1, 0], [4, -3], [0, 0], [1, 0], [1e-30, 0]], np.float32)
    np.testing.assert_allclose(measures.row_cosine(left, right), [1, -1, 0, 1, 0, 1], atol=1e-7)


@quick
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 2**16))
def test_norms_add_up(sizes: list[int], seed: int) -> None:
    """The norms of batches add up to those of all rows, absent vectors not counted."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((sum(sizes), 3)).astype(np.float32)
    kind = rng.integers(0, 5, len(matrix))
    matrix[kind == 0], matrix[kind == 1, 1] = 0, np.nan
    present = kind != 2
    starts, total = np.cumsum([0, *sizes]), Norms()
    for a, b in pairwise(starts):
        total += measures.norms(batch(matrix[a:b], present[a:b]))
    finite = np.linalg.norm(matrix[(kind != 1) & present].astype(float), axis=1)
    assert (total.rows, total.zero, total.not_finite) == (present.sum(), (kind == 0).sum(), (kind == 1).sum())
    assert total.mean == pytest.approx(finite.mean() if len(finite) else 0)
    if len(finite):
        assert (total.lowest, total.highest) == pytest.approx((finite.min(), finite.max()))


WORK = Work(0.0, 0.0, 0.0, 0, {}, Spending(0, 0, 0.0, 0, 0))


@pytest.mark.parametrize("passed", [False, np.False_, np.float32(1) > np.float32(2)])
def test_a_failed_check_is_drawn_as_one(tmp_path: Path, passed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """In the terminal, in JSON, in HTML and in the artifact, whatever kind of bool it was made of."""
    request = Request(
        flow="chroma-to-pgvector",
        source={"store": "chroma", "path": "/there"},
        database="DATABASE_URL",
        embedder=None,
        batch_rows=1,
        limit=None,
        rollback_days=7,
    )
    check = Check("recall@10", passed, np.int64(200), "0.8 at ef_search 40", "≥ 0.9", gate="min_recall")
    target = TargetReport("docs", "public.docs", 7, [check])
    path = report.write(Run(Plan("r", request, ()), "", str(tmp_path)), [target], WORK)

    data = json.loads(Path(path.removesuffix("html") + "json").read_text())
    assert data["passed"] is data["targets"][0]["checks"][0]["passed"] is False
    show_checks(path.removesuffix("html") + "json")
    terminal, page, artifact = capsys.readouterr().out, Path(path).read_text(), report.markdown([target])
    for shown, yes, no in ((terminal, "✓", "✗"), (page, "✓", "✗"), (artifact, "✅", "❌")):
        assert (yes in shown, no in shown) == (False, True), shown
    assert "not verified" in page
    with pytest.raises(VerificationRefused, match=r"recall@10 .*gates\.min_recall"):
        Verification([target], path).refuse()


def test_a_reports_json_keeps_its_names() -> None:
    """report.json is read by other programs: what a target comes to has the names that it had, and no others."""
    latency = Latency(1.0, 2.0, 3.0, 900.0, 200)
    norms = Norms(2, 0, 0, 1.0, 3.0, 4.0)
    bare = Benchmark(10, 40, (Tried(40, 0.9, latency),), latency, 200, 8192, norms)
    change = Change(Agreement(0.5, 0.2), Threshold(0.7, 1.0), Ndcg(3, 0.5))
    full = replace(bare, source=OfSource(latency, 0.8, 0.7, ((0.1, 0.2),)), change=change)
    measured = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "per_second": 900.0, "searches": 200}
    of_both = {
        "k": 10,
        "ef_search": 40,
        "sweep": [{"ef_search": 40, "recall": 0.9, **measured}],
        "target": measured,
        "probes": 200,
        "table_bytes": 8192,
        "norms": {"lowest": 1.0, "mean": 2.0, "highest": 3.0},
    }
    assert bare.as_json() == of_both
    assert full.as_json() == of_both | {
        "source": measured,
        "source_recall": 0.8,
        "overlap": 0.7,
        "distances": [[0.1, 0.2]],
        "old_new_overlap": {"mean": 0.5, "p5": 0.2},
        "threshold": {"old": 0.7, "passing": 1.0},
        "ndcg": {"queries": 3, "new": 0.5},
    }
    assert TargetReport("docs", "public.docs", 7, [Check("ids", True, 7, "all", "all")]).as_json() == {
        "name": "docs",
        "table": "public.docs",
        "rows": 7,
        "checks": [{"name": "ids", "passed": True, "looked_at": 7, "found": "all", "wanted": "all", "gate": None}],
        "benchmark": {},
        "notes": [],
        "quarantined": 0,
        "passed": True,
    }


def test_a_report_holds_no_text_for_what_is_none() -> None:
    """Numbers of numpy's become numbers; anything else that JSON has no word for is an error."""
    assert json.dumps([np.bool_(False), np.int64(3), np.float32(0.5)], default=report.plain) == "[false, 3, 0.5]"
    with pytest.raises(TypeError, match="set"):
        json.dumps({1}, default=report.plain)


def test_a_name_does_not_break_the_artifact() -> None:
    """A row may be called anything: its line of the table stays one, with as many cells."""
    target = TargetReport("docs", "public.docs", 1, [Check("missing", False, 1, "1 ('a|b\nc')", "0")])
    lines = report.markdown([target]).splitlines()
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == lines[0].count("|")


def test_every_check_is_explained() -> None:
    """The page says of each check in the code what it looks at; of one that it does not know, nothing."""
    modules = [*Path(report.__file__).parent.glob("*.py"), Path(verify.__file__)]
    calls = [n for path in modules for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = [ast.unparse(n.args[0]) for n in calls if ast.unparse(n.func) == "Check"]
    assert len(names) > 10
    assert [name for name in names if not report.explained(name.strip("f'\""))] == []
    assert report.explained("of another version") == ""
