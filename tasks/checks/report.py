"""The verification report: JSON for programs, one HTML page without outside parts for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base import files
from tasks.base.words import agreeing, counted
from tasks.checks import charts
from tasks.checks.benchmark import Benchmark
from tasks.checks.contact_sheet import ContactSheet
from tasks.checks.measures import Check
from tasks.runs import status
from tasks.runs.details import Translated
from tasks.runs.figures import Speed
from tasks.runs.run import Run
from tasks.runs.spending import Spending

MEANINGS = {
    "source count": "rows compared, against the source's own count",
    "rows": "rows stored there, against those that should be",
    "missing": "rows of the source that are not there",
    "extra": "rows there that the source does not have",
    "vectors": "rows that say something, and those of them that have a vector, counted where they lie",
    "content": "rows whose text, metadata or vector differ",
    "queue": "rows that changed and that catching up does not bring in line",
    "quarantined": "rows set aside because they cannot be migrated",
    "NaN or infinity": "vectors that hold one",
    "recall": "share of the true nearest neighbours that the index returns",
    "query parity": "recall of both stores for the same queries",
    "distances": "difference between the distances that both stores give",
    "row cosine": "sampled vectors against those of the source or model",
    "labels": "how often the nearest other row has the same label, by the old and by the new vectors",
    "queries": "queries of yours whose expected row is among the first that the new vectors find",
    "self search": "sampled images, embedded once more, whose own row comes first",
    "old model": "sampled old vectors against those of the old model",
    "empty": "nothing to migrate",
}
"""What each check looks at, for who reads a report for the first time."""


@dataclass(frozen=True)
class TargetReport:
    """All that was learnt about one target."""

    name: str
    table: str
    rows: int
    checks: list[Check]
    benchmark: Benchmark | None = None
    """None where there was nothing to search."""
    notes: list[str] = field(default_factory=list)
    quarantined: int = 0
    set_aside: Sequence[str] = ()
    """Why rows are quarantined, and how to go on with them; in the notes too."""
    sheet: ContactSheet | None = None
    """Of images only."""

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(c.passed for c in self.checks)

    @property
    def threshold(self) -> Translated | None:
        """What a threshold of similarity by the old vectors becomes by the new ones, to three digits, as it is told."""
        figures = self.benchmark.change.threshold if self.benchmark else None
        if figures is None or figures.new is None or figures.low is None or figures.high is None:
            return None
        return Translated(figures.old, *(round(value, 3) for value in (figures.new, figures.low, figures.high)))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "table": self.table,
            "rows": self.rows,
            "checks": [check.as_json() for check in self.checks],
            "benchmark": self.benchmark.as_json() if self.benchmark else {},
            "notes": self.notes,
            "quarantined": self.quarantined,
            "passed": self.passed,
            **({"contact_sheet": self.sheet.as_json()} if self.sheet else {}),
        }


@dataclass(frozen=True)
class Work:
    """What the run took by then."""

    seconds: float
    """Of verification, as the next two."""
    cpu_seconds: float
    rested_seconds: float
    """So that others in the database came first."""
    peak_memory_mb: int
    """Of this process."""
    stages: dict[str, Speed]
    spent: Spending


def write(run: Run, targets: list[TargetReport], work: Work) -> str:
    """Keeps the report of this verification beside the run and returns the path of its HTML."""
    data = {
        "run_id": run.run_id,
        "flow": run.plan.request.flow,
        "source": run.plan.request.source,
        "place": status.place(run.plan),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": all(target.passed for target in targets),
        "targets": [target.as_json() for target in targets],
        "figures": asdict(work),
    }
    files.write(run.path("report.json"), json.dumps(data, indent=1, default=plain).encode())
    plots = [charts.drawn(t.benchmark) if t.benchmark else "" for t in targets]
    page = _template().render(report=data, plots=plots, sheets=[t.sheet for t in targets])
    files.write(run.path("report.html"), page.encode())
    return run.path("report.html")


def plain(value: Any) -> Any:
    """What JSON makes of a number of numpy's. Raises TypeError for anything else that JSON has no word for: a text in its
    place would be read as true."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a report cannot hold {type(value).__name__}: {value!r}")


def explained(check: str) -> str:
    """What a check looks at, by its name; ``recall@10`` is ``recall``. Empty for a check of another version."""
    return MEANINGS.get(check.partition("@")[0], "")


def markdown(targets: list[TargetReport]) -> str:
    """The table of checks, as a Prefect artifact shows it."""
    lines = ["| | check | table | result | required | checked |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {'✅' if c.passed else '❌'} | {c.name} | {_cell(t.table)} | {_cell(c.result)} | {c.wanted} | {c.looked_at:,} |"
        for t in targets
        for c in t.checks
    ]
    return "\n".join(lines + [f"\n{t.table}: {note}" for t in targets for note in t.notes])


def _cell(text: str) -> str:
    """Names of rows and tables may hold what ends a cell."""
    return " ".join(text.replace("|", "\\|").split())


@cache
def _template() -> Any:
    import jinja2  # which nothing else needs: a run begins without it

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"counted": counted, "agreeing": agreeing, "explained": explained}
    return environment.from_string((Path(__file__).parent / "report.html.j2").read_text())
