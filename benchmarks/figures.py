"""A measured figure, its limit, and the table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One line of the table. Without a limit it is only reported."""

    name: str
    rows: int
    value: float
    limit: float | None = None
    sense: Literal["≥", "≤"] = "≤"
    unit: str = ""
    note: str = ""

    @property
    def holds(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value >= self.limit if self.sense == "≥" else self.value <= self.limit


def line(figure: Figure) -> str:
    """One row of the table."""
    limit = "" if figure.limit is None else f"{figure.sense} {figure.limit:g}{figure.unit}"
    holds = {None: "", True: "yes", False: "**no**"}[figure.holds]
    matches = f"{figure.value:,.0f} MB" if figure.unit == " MB" else f"{figure.value:.2f}{figure.unit}"
    return f"| {figure.name} | {figure.rows:,} | {matches} | {limit} | {holds} | {figure.note} |"


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    return "\n".join(
        ["| what | rows | found | limit | holds | measured |", "|---|---:|---:|---:|---|---|", *map(line, figures)]
    )
