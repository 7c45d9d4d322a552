"""Queries with their answers, as a user writes them: a file of JSON lines.

    {"query": "a red bus", "expected": "photos/17.jpg"}             must be answered; several answers are a list
    {"query": "a red bus", "relevant": {"17": 2, "photos/4.jpg": 1}}  graded, for nDCG; a list grades all alike

An answer is named by its id, or by what its document is called: of an image, its reference.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.base.errors import UsageError
from tasks.contents.interface import Content
from tasks.stores.interface import Hits, Records

WANTED = '{"query": text, "relevant": {id: grade}} or {"query": text, "expected": id}'


@dataclass(frozen=True)
class Query:
    """One query."""

    text: str
    grades: dict[str, float]
    """Of each answer, by a name of it."""
    expected: tuple[str, ...] = ()
    """Those of which one must be among the first."""


def read_queries(path: str) -> list[Query]:
    """The queries of a file. Raises UsageError where it holds none, or a line is no query."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"queries: {error}") from error
    queries = [_query(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not queries:
        raise UsageError(f"queries: {path} holds no queries")
    return queries


def named(content: Content, records: Records, hits: Sequence[Hits]) -> dict[str, set[str]]:
    """Id → the names of a hit. Of a text that is its id alone, as nobody names a text by writing it out."""
    ids = list(dict.fromkeys(i for hit in hits for i in hit.ids))
    names = {i: {i} for i in ids}
    if content.gives == "text":
        return names
    batch = records.fetch(ids)
    for i, document in zip(batch.column("id").to_pylist(), batch.column("document").to_pylist(), strict=True):
        if document is not None:
            names[i].add(content.name_of(document))
    return names


def _query(path: str, number: int, line: str) -> Query:
    try:
        entry: dict[str, Any] = json.loads(line)
        relevant, expected = entry.get("relevant", {}), entry.get("expected", [])
        if not relevant and not expected and "relevant" not in entry:
            raise KeyError("relevant")
        answers = [expected] if isinstance(expected, str | int) else list(expected)
        graded = relevant if isinstance(relevant, dict) else dict.fromkeys(relevant, 1.0)
        grades = {str(name): float(grade) for name, grade in (dict.fromkeys(answers, 1.0) | graded).items()}
        return Query(str(entry["query"]), grades, tuple(map(str, answers)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"queries: line {number} of {path} is not {WANTED} ({error!r})") from error
