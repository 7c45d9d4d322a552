"""What a search came to, as the command prints it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from flows.command.show.terminal import out, print_json
from tasks.base.words import counted

LONGEST = 100
"""Characters of a document that a person is shown."""


@dataclass(frozen=True)
class Hit:
    """One row."""

    id: str
    document: str | None
    """What people call its item: of an image its reference."""
    score: float | None
    """None of the Euclidean distance, which has none."""
    distance: float


@dataclass(frozen=True)
class Searched:
    """The rows of one target, the nearest first."""

    name: str
    kind: str
    """What its items are."""
    hits: Sequence[Hit]


@dataclass(frozen=True)
class Answer:
    """Of all targets."""

    run_id: str
    query: str
    model: str
    targets: Sequence[Searched]


def show_searched(answer: Answer, as_json: bool) -> None:
    """For a person a line a row: its document, and its score."""
    if as_json:
        print_json(asdict(answer))
        return
    for target in answer.targets:
        out.print(f"Found {counted(len(target.hits), target.kind)} in {target.name}")
        for hit in target.hits:
            out.print(f"  - {_shown(hit)} ({_score(hit)})")


def _shown(hit: Hit) -> str:
    line = " ".join((hit.document or hit.id).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _score(hit: Hit) -> str:
    return f"distance: {hit.distance:.3f}" if hit.score is None else f"score: {hit.score:.3f}"
