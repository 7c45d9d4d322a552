"""The charts of a report: every value has its mark, at its place, in SVG that is well-formed."""

import math
from xml.etree import ElementTree

import pytest

from tasks.checks.benchmark import Benchmark, Latency, OfSource, Tried
from tasks.checks.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, axis, drawn
from tasks.checks.measures import Norms

SVG = "{http://www.w3.org/2000/svg}"
FAST, SLOW = Latency(1.0, 2.0, 4.0, 800.0, 40), Latency(0.5, 1.0, 3.0, 900.0, 40)
SWEEP = tuple(Tried(ef_search, recall, FAST) for ef_search, recall in ((40, 0.5), (80, 0.75), (200, 1.0)))


def benchmark(source: OfSource | None = None, sweep: tuple[Tried, ...] = SWEEP) -> Benchmark:
    return Benchmark(10, 40, sweep, FAST, 40, None, Norms(1.0, 1.0, 1.0), source=source)


def marks(benchmark: Benchmark, name: str) -> list[dict[str, str]]:
    return [element.attrib for element in ElementTree.fromstring(drawn(benchmark)).iter(f"{SVG}{name}")]


def test_every_value_has_its_mark() -> None:
    """Bars of both stores as high as their latencies, recall by ef_search, and a pair of distances each."""
    both = benchmark(OfSource(SLOW, 0.9, 1.0, ((0.25, 0.25), (0.5, 0.75), (1.0, 1.0))))
    bars = [bar for bar in marks(both, "rect") if float(bar["y"]) + float(bar["height"]) == BOTTOM]
    heights = [float(bar["height"]) / (BOTTOM - TOP) * 4 for bar in bars]
    assert heights == pytest.approx([1.0, 2.0, 4.0, 0.5, 1.0, 3.0], abs=0.01)
    places = [(float(dot["cx"]), float(dot["cy"])) for dot in marks(both, "circle")]
    first, second = LEFT + WIDTH / 3, LEFT + 2 * WIDTH / 3
    recall = [((x - first) / (RIGHT - LEFT) * 200, (BOTTOM - y) / (BOTTOM - TOP) * 1.03) for x, y in places[:3]]
    assert recall == [pytest.approx(point, rel=0.01) for point in ((40, 0.5), (80, 0.75), (200, 1.0))]
    x, y = zip(*places[3:], strict=True)
    assert [(at - second) / (RIGHT - LEFT) * 0.8 + 0.2 for at in x] == pytest.approx([0.25, 0.75, 1.0], abs=0.01)
    assert [(BOTTOM - at) / (BOTTOM - TOP) * 0.8 + 0.2 for at in y] == pytest.approx([0.25, 0.5, 1.0], abs=0.01)


def test_a_store_alone_is_drawn_alone() -> None:
    """No bars, line or distances of a source that was not searched."""
    assert "source" not in drawn(benchmark())
    assert len(marks(benchmark(), "circle")) == len(SWEEP)


def test_what_is_no_number_is_left_out() -> None:
    """A distance of a zero vector is none, and the others are drawn all the same."""
    spoilt = benchmark(OfSource(SLOW, 0.9, 1.0, ((math.nan, 0.5), (0.5, 0.5), (0.5, math.inf))))
    assert len(marks(spoilt, "circle")) == len(SWEEP) + 1
    assert "nan" not in drawn(spoilt)


def test_little_to_draw_is_drawn() -> None:
    """Searches too fast for the clock, one value or none, a distance of 0."""
    nothing = Latency(0.0, 0.0, 0.0, 0.0, 0)
    for sweep in ((), SWEEP[:1]):
        bare = Benchmark(
            10, 40, sweep, nothing, 0, None, Norms(0.0, 0.0, 0.0), source=OfSource(nothing, 0.0, 0.0, ((0.0, 0.0),))
        )
        ElementTree.fromstring(drawn(bare))


@pytest.mark.parametrize(
    "values", [[0.3], [-0.9, -0.2], [1e-7, 3e-7], [12_345.0, 70_000.0], [0.9999, 1.0001], [0.0, 0.0], [-5.0, 5.0], []]
)
def test_an_axis_holds_its_values_and_is_marked_at_round_numbers(values: list[float]) -> None:
    """From two to eight marks, the first and the last at the ends, none with a tail of digits."""
    made = axis(values, "")
    slack = 1e-9 * (made.high - made.low)
    assert all(made.low - slack <= value <= made.high + slack for value in values)
    assert 2 <= len(made.ticks) <= 8
    assert (made.ticks[0][0], made.ticks[-1][0]) == pytest.approx((made.low, made.high))
    assert all(len(name.lstrip("-")) <= 7 for _, name in made.ticks)
