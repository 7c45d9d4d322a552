"""What a search function answers, and what two of its answers have to agree in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.base.words import counted, some

TOLERANCE = 2e-3
"""Relative difference of distances: those of half vectors are as coarse."""

Row = tuple[Any, ...]
Answers = dict[tuple[str, int], "Answer"]
"""By the role that asked, and the dimensions of its query."""


@dataclass(frozen=True)
class Answer:
    """What a call came to: rows, or the class of its refusal."""

    rows: tuple[Row, ...] = ()
    refused: str | None = None
    columns: tuple[str, ...] = field(default=(), compare=False)
    words: str = field(default="", compare=False)
    """The server's, of the refusal."""

    def __str__(self) -> str:
        return f"fails ({self.words or self.refused})" if self.refused else f"finds {counted(len(self.rows), 'row')}"


def unsteady(first: Answers, second: Answers) -> frozenset[str]:
    """The columns of an answer that are others each time that it is asked for; all, where the rows are."""
    names = set[str]()
    for key, answer in first.items():
        other = second[key]
        if len(answer.rows) != len(other.rows):
            return frozenset({*names, *answer.columns})
        for row, later in zip(answer.rows, other.rows, strict=True):
            names |= {name for name, a, b in zip(answer.columns, row, later, strict=True) if a != b}
    return frozenset(names)


def without(answers: Answers, names: frozenset[str]) -> Answers:
    """The answers without some of their columns."""
    if not names:
        return answers
    return {
        key: replace(
            answer,
            columns=tuple(c for c in answer.columns if c not in names),
            rows=tuple(
                tuple(v for c, v in zip(answer.columns, row, strict=True) if c not in names) for row in answer.rows
            ),
        )
        for key, answer in answers.items()
    }


def failures(name: str, answers: Answers) -> list[str]:
    """Roles whose calls all fail, by the server's words."""
    roles = dict[str, list[str]]()
    for role in dict.fromkeys(role for role, _ in answers):
        words = [answer.words or answer.refused or "" for (who, _), answer in answers.items() if who == role]
        if all(answer.refused for (who, _), answer in answers.items() if who == role):
            roles.setdefault(words[0], []).append(role)
    return [f"{name} fails as {some(who)}: {words}" for words, who in roles.items()]


def unseen(name: str, answers: Answers) -> list[str]:
    """Roles who find nothing, by whatever vectors, and are not refused."""
    seen = {role for (role, _), answer in answers.items() if answer.rows}
    asking = dict.fromkeys(role for (role, _), answer in answers.items() if not answer.refused)
    roles = [role for role in asking if role not in seen]
    return [f"{name} finds nothing as {some(roles)}, before or after"] if roles else []


def losses(name: str, before: Answers, after: Answers) -> list[str]:
    """Where a role that gets rows by old vectors gets none by new ones."""
    finds = {role for (role, _), answer in before.items() if answer.rows}
    return [
        f"as {role}, {name} {answer} for a query of {counted(size, 'dimension')}, and finds rows by old vectors"
        for (role, size), answer in after.items()
        if role in finds and not answer.rows
    ]


def differences(name: str, before: Answers, after: Answers) -> list[str]:
    """Where an answer is not what it was, to the letter."""
    return [
        f"as {role}, {name} {before[role, size]} for a query of {counted(size, 'dimension')} before, and after it {answer}"
        if str(answer) != str(before[role, size])
        else f"as {role}, {name} gives other rows for a query of {counted(size, 'dimension')} than before"
        for (role, size), answer in after.items()
        if (role, size) in before and answer != before[role, size]
    ]


def deviations(name: str, exact: Answers, after: Answers) -> list[str]:
    """Where an answer by index is not of what exact search gives the same role, with the same distances."""
    lines = []
    for (role, size), answer in after.items():
        if (role, size) not in exact:
            continue
        best = exact[role, size]
        if answer.refused != best.refused:
            lines.append(
                f"as {role}, {name} {answer} for a query of {counted(size, 'dimension')}, and exact search {best}"
            )
        elif (answer.rows or best.rows) and not _agree(answer.rows, best.rows):
            lines.append(
                f"as {role}, {name} finds other rows for a query of {counted(size, 'dimension')} than exact search"
            )
    return lines


def _agree(rows: Sequence[Row], exact: Sequence[Row]) -> bool:
    """Whether the nearest row is as near, and most of the others are the same or, where several are as near, as near: an index
    finds most, and never nearer ones."""
    if not rows or not exact:
        return False
    if _distances(exact[0]) and not _same(_distances(rows[0]), _distances(exact[0])):
        return False
    return sum(_is_of(row, exact) for row in rows) >= len(rows) / 2


def _is_of(row: Row, exact: Sequence[Row]) -> bool:
    """Whether the row is one of these, or as near as several of them, or as the last, which may be one of more."""
    if any(_same(row, other) for other in exact):
        return True
    near = [n for n, other in enumerate(exact) if _distances(row) and _same(_distances(row), _distances(other))]
    return len(near) > 1 or len(exact) - 1 in near


def _distances(row: Row) -> Row:
    return tuple(value for value in row if isinstance(value, float))


def _same(row: Row, other: Row) -> bool:
    return len(row) == len(other) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in zip(row, other, strict=True)
    )
