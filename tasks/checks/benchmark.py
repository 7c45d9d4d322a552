"""What searching a target came to, in numbers for its report."""

from dataclasses import asdict, dataclass
from typing import Any

from tasks.checks.measures import Norms


@dataclass(frozen=True)
class Latency:
    """Of searches that were made one at a time."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float
    searches: int
    """How many were made."""


@dataclass(frozen=True)
class Tried:
    """The new index, looking at so many candidates."""

    ef_search: int
    recall: float
    latency: Latency

    def as_json(self) -> dict[str, Any]:
        return {"ef_search": self.ef_search, "recall": self.recall, **asdict(self.latency)}


@dataclass(frozen=True)
class OfSource:
    """The source's own index, where it holds the same vectors."""

    latency: Latency
    recall: float
    overlap: float
    """Share of neighbours that both stores name."""
    distances: tuple[tuple[float, float], ...]
    """Of the same neighbours, by the new index and by the source."""


@dataclass(frozen=True)
class Agreement:
    """Share of a row's old neighbours that are its new ones."""

    mean: float
    p5: float
    """The 5th percentile of the rows."""


@dataclass(frozen=True)
class Threshold:
    """What a threshold of similarity by the old vectors becomes by the new ones, with its interval of 95 %."""

    old: float
    passing: float
    """Share of neighbours that it lets through."""
    new: float | None = None
    """None where it lets all or none through, and cannot be translated."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ndcg:
    """Of labelled queries; what the old model comes to, and the gain with its interval of 95 %, where that is named."""

    queries: int
    new: float
    old: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the new vectors answer to a query of the user's."""

    query: str
    expected: tuple[str, ...]
    """Any of these, by id or by what its item is called."""
    rank: int | None = None
    """From 1; None where it is not among the first."""
    score: float | None = None
    """None of the Euclidean distance, which has none."""
    distance: float | None = None


@dataclass(frozen=True)
class Gain:
    """A figure by the old and by the new vectors, and what was gained with its interval of 95 %."""

    old: float
    new: float
    gain: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class OfLabel:
    """The rows of one label."""

    label: str
    rows: int
    old_top1: float
    new_top1: float
    old_map: float
    new_map: float


@dataclass(frozen=True)
class Labels:
    """Whether rows of the same label, such as an individual, are nearest to each other, by rows that were drawn."""

    name: str
    """The column of the labels."""
    rows: int
    """How many were drawn, all of them with both vectors, and of how many labels."""
    of: int
    labels: int
    """That two rows have at least, of all rows."""
    alone: int
    """Labels of a single row, which has nothing to be found by."""
    unlabelled: int
    top1: Gain
    """Share of rows whose nearest other row has their label."""
    map: Gain
    """Mean average precision over the ranking of the other rows."""
    worst: tuple[OfLabel, ...]
    """Those that lose most."""


@dataclass(frozen=True)
class Change:
    """What the change of model does to searches; None is what was not asked for, or cannot be told."""

    old_new_overlap: Agreement | None = None
    threshold: Threshold | None = None
    ndcg: Ndcg | None = None
    labels: Labels | None = None


@dataclass(frozen=True)
class Benchmark:
    """All that was measured of one target."""

    k: int
    ef_search: int
    """That the gate of recall is decided at."""
    sweep: tuple[Tried, ...]
    latency: Latency
    """At that ef_search."""
    probes: int
    table_bytes: int | None
    """With its indexes; None where its store does not tell."""
    norms: Norms
    exact: Latency | None = None
    """Without the index; None of a table that is too large to be read once a search."""
    source: OfSource | None = None
    change: Change = Change()
    answers: tuple[Answer, ...] = ()
    """To the queries that must be answered."""

    def as_json(self) -> dict[str, Any]:
        """As report.json has it: what there is not is left out."""
        source, norms = self.source, self.norms
        return {
            "k": self.k,
            "ef_search": self.ef_search,
            "sweep": [tried.as_json() for tried in self.sweep],
            "target": asdict(self.latency),
            **({} if self.exact is None else {"exact": asdict(self.exact)}),
            "probes": self.probes,
            "table_bytes": self.table_bytes,
            "norms": {"lowest": norms.lowest, "mean": norms.mean, "highest": norms.highest},
            **({} if source is None else _source(source)),
            **({"queries": [_there(asdict(answer)) for answer in self.answers]} if self.answers else {}),
            **{name: _there(asdict(figures)) for name, figures in vars(self.change).items() if figures},
        }


def _source(source: OfSource) -> dict[str, Any]:
    pairs = [list(pair) for pair in source.distances]
    return {
        "source": asdict(source.latency),
        "source_recall": source.recall,
        "overlap": source.overlap,
        "distances": pairs,
    }


def _there(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if value is not None}
