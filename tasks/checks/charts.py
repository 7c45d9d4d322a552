"""The charts of a report as inline SVG, drawn by hand: matplotlib took a third of a second to import and draw three of them, in
every process that verifies."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.checks.benchmark import Benchmark

WIDTH, HEIGHT = 960, 272
"""Of all three, in units of their own: they are as wide as the page."""
LEFT, TOP, RIGHT, BOTTOM = 52, 30, 308, 222
"""Where the first is drawn; each other is a third of the width further."""
TARGET, SOURCE = "#1f77b4", "#e8710a"
LINE, WORD = "#8a94a3", "#3a4452"
Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What lies between two values, where it is marked, and what it is of."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    label: str = ""


@dataclass(frozen=True)
class Chart:
    """One of the three, counted from 0."""

    number: int
    title: str
    x: Axis
    y: Axis

    @property
    def left(self) -> float:
        return LEFT + self.number * WIDTH / 3

    def across(self, value: float) -> float:
        return self.left + (RIGHT - LEFT) * (value - self.x.low) / (self.x.high - self.x.low)

    def up(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - self.y.low) / (self.y.high - self.y.low)

    def drawn(self, *marks: str) -> str:
        """Axes, ticks and words around the marks."""
        left, right = self.left, self.left + RIGHT - LEFT
        middle = (left + right) / 2
        lines = f"M{left:.1f} {TOP}V{BOTTOM}H{right:.1f}"
        words = [_word(middle, 18, self.title, size=13), _word(middle, HEIGHT - 10, self.x.label)]
        for value, name in self.x.ticks:
            lines += f"M{self.across(value):.1f} {BOTTOM}v4"
            words.append(_word(self.across(value), BOTTOM + 17, name))
        for value, name in self.y.ticks:
            lines += f"M{left:.1f} {self.up(value):.1f}h-4"
            words.append(_word(left - 7, self.up(value) + 4, name, anchor="end"))
        at = f"{left - 40:.1f} {(TOP + BOTTOM) / 2}"
        words.append(
            f'<text transform="translate({at})rotate(-90)" text-anchor="middle" fill="{WORD}">{self.y.label}</text>'
        )
        return f'<path d="{lines}" fill="none" stroke="{LINE}"/>{"".join(words)}{"".join(marks)}'

    def line(self, points: Iterable[Point], colour: str, dashed: bool = False, width: float = 1.6) -> str:
        path = " ".join(f"{self.across(x):.1f},{self.up(y):.1f}" for x, y in points)
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'

    def dots(self, points: Iterable[Point], colour: str, radius: float, opacity: float = 1.0) -> str:
        places = "".join(f'<circle cx="{self.across(x):.1f}" cy="{self.up(y):.1f}" r="{radius}"/>' for x, y in points)
        return f'<g fill="{colour}" fill-opacity="{opacity}">{places}</g>'

    def bar(self, at: float, width: float, height: float, colour: str) -> str:
        top = self.up(height)
        wide = self.across(width) - self.across(0)
        return f'<rect x="{self.across(at):.1f}" y="{top:.1f}" width="{wide:.1f}" height="{BOTTOM - top:.1f}" fill="{colour}"/>'

    def legend(self, names: Sequence[tuple[str, str]]) -> str:
        """Names and their colours, in the upper left, where the values are small."""
        swatch, gap = 11, 17
        marks = [
            f'<rect x="{self.left + 12:.1f}" y="{TOP + gap * at}" width="{swatch}" height="{swatch}" fill="{colour}"/>'
            + _word(self.left + 30, TOP + gap * at + 10, name, anchor="start")
            for at, (name, colour) in enumerate(names)
        ]
        return "".join(marks)


def drawn(benchmark: Benchmark) -> str:
    """Latencies of both stores, recall over ef_search, and the distances of both stores against each other."""
    charts = [_latency(benchmark), _recall(benchmark)]
    if benchmark.source and (pairs := [pair for pair in benchmark.source.distances if all(map(math.isfinite, pair))]):
        charts.append(_distances(pairs))
    style = 'font-family="inherit" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>{"".join(charts)}</svg>'


def axis(values: Sequence[float], label: str, low: float | None = None) -> Axis:
    """An axis that holds the values, from ``low`` or the least of them on, marked at round numbers."""
    least, most = min(values, default=0.0) if low is None else low, max(values, default=0.0)
    span = most - least or abs(most) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first = math.floor(least / step + 1e-9)
    last = max(first + 1, math.ceil(most / step - 1e-9))
    ticks = [(at * step, f"{at * step:.10g}") for at in range(first, last + 1)]
    return Axis(first * step, last * step, ticks, label)


def _latency(benchmark: Benchmark) -> str:
    source = benchmark.source
    stores = [
        ("target", TARGET, benchmark.latency),
        *([("source", SOURCE, source.latency)] if source else []),
    ]
    heights = [[measured.p50_ms, measured.p95_ms, measured.p99_ms] for _, _, measured in stores]
    names = Axis(-0.5, 2.5, [(at, name) for at, name in enumerate(("p50", "p95", "p99"))])
    y = axis([height for of_store in heights for height in of_store], "ms", low=0.0)
    chart = Chart(0, f"Search latency, top {benchmark.k}", names, y)
    width = 0.76 / len(stores)
    bars = [
        chart.bar(at - 0.38 + width * store, width * 0.94, height, colour)
        for store, (_, colour, _) in enumerate(stores)
        for at, height in enumerate(heights[store])
    ]
    return chart.drawn(*bars, chart.legend([(name, colour) for name, colour, _ in stores]))


def _recall(benchmark: Benchmark) -> str:
    points = [(float(tried.ef_search), tried.recall) for tried in benchmark.sweep]
    x = axis([ef_search for ef_search, _ in points], "ef_search", low=0.0)
    y = Axis(0.0, 1.03, [(fifth / 5, f"{fifth / 5:.1f}") for fifth in range(6)])
    chart = Chart(1, f"Recall@{benchmark.k} against exact search", x, y)
    marks = [chart.line(points, TARGET), chart.dots(points, TARGET, 3.2)]
    if source := benchmark.source:
        marks.append(chart.line([(x.low, source.recall), (x.high, source.recall)], SOURCE, dashed=True))
        at = chart.left + RIGHT - LEFT - 70
        marks.append(
            f'<path d="M{at:.1f} {BOTTOM - 16}h22" stroke="{SOURCE}" stroke-width="1.6" stroke-dasharray="6 4"/>'
        )
        marks.append(_word(at + 27, BOTTOM - 12, "source", anchor="start"))
    return chart.drawn(*marks)


def _distances(pairs: Sequence[Point]) -> str:
    """Of the target and of the source, as a benchmark has them."""
    pairs = [(of_source, of_target) for of_target, of_source in pairs]
    both = axis([distance for pair in pairs for distance in pair], "")
    chart = Chart(
        2,
        "Distances of neighbours that both give",
        Axis(both.low, both.high, both.ticks, "source"),
        Axis(both.low, both.high, both.ticks, "target"),
    )
    same = chart.line([(both.low, both.low), (both.high, both.high)], LINE, width=0.8)
    return chart.drawn(same, chart.dots(pairs, TARGET, 1.8, 0.5))


def _word(x: float, y: float, text: str, anchor: str = "middle", size: int = 0) -> str:
    sized = f' font-size="{size}"' if size else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{WORD}"{sized}>{text}</text>'
