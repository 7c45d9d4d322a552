"""What a search function is asked, so that what it answers says something: with arguments that find rows in no time, each role by the
vectors of a row that the function itself shows it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from psycopg import errors, sql

from tasks.runs.models import Model
from tasks.shadows.postgres import probe
from tasks.shadows.postgres.answers import Answer
from tasks.shadows.postgres.arguments import Call, calls
from tasks.stores.postgres.catalogue import Function
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.live_table import LiveTable, quoted

STARTS = 8
"""How many rows of the table are asked with until one finds something."""
FEW = 5
"""How many rows say enough."""
QUICK = 0.05
"""Seconds of a call that is taken before others."""
SECONDS = 3.0
"""How long arguments are looked for."""
LONGEST = 2.0
"""Seconds that a call may take."""
EACH = f"SET LOCAL statement_timeout = {LONGEST * 1000:.0f}"

TIMES = 3
"""How often a call is made that takes long."""

Key = tuple[Any, ...]
Worth = tuple[bool, bool, bool, int]
"""Of a call: whether it finds anything, whether what it finds is found by its own vector, whether it is quick, and how many rows it
finds."""


@dataclass(frozen=True)
class Asking:
    """Whose answers, from which vectors."""

    live: LiveTable
    function: Function
    query: int | None
    """The argument that is the query, by number; None where there is none."""
    served: Mapping[int, Model]
    """By their dimensions, the models whose queries the function answers now."""
    wanted: Mapping[int, Model]
    """Those whose queries it answers before or after the change."""
    roles: Sequence[str]
    settings: Mapping[str, str]
    """What policies and filters read."""
    dropped: str | None = None
    """The column of the table that is about to be dropped."""

    def ask(self, connection: Connection, call: str, role: str, *before: probe.Statement) -> Answer:
        return probe.ask(connection, call, role, self.settings, *before)

    def keys(self, answer: Answer) -> list[Key]:
        """The rows of an answer, by their keys; none where it does not show them."""
        names = [column.name for column in self.live.key]
        if not set(names) <= set(answer.columns):
            return []
        at = [answer.columns.index(name) for name in names]
        return [tuple(row[n] for n in at) for row in answer.rows]

    def vectors(self, connection: Connection, key: Key, models: Mapping[int, Model]) -> dict[int, str]:
        """What is stored of a row, by dimensions."""
        operator = f"OPERATOR({pgvector_schema(connection)}.<#>)"
        where = " AND ".join(f"{column.quoted} = %s::{column.cast}" for column in self.live.key)
        stored = dict[int, str]()
        for size, model in models.items():
            select = _nonzero(model, f"{quoted(model.column_name)}::text", operator)
            if row := connection.execute(select + sql.SQL(" AND " + where), key).fetchone():
                stored[size] = row[0]
        return stored


@dataclass(frozen=True)
class Asked:
    """What each role is asked."""

    call: Call
    vectors: Mapping[tuple[str, int], str]
    """By role and dimensions of the query."""
    shown: frozenset[str] = field(default_factory=frozenset)
    """Roles to whom the function shows the very row that it is asked with."""

    @property
    def calls(self) -> dict[tuple[str, int], str]:
        """By role and dimensions of the query."""
        return {key: self.call(vector) for key, vector in self.vectors.items()}

    @property
    def others(self) -> dict[tuple[str, int], tuple[str, ...]]:
        """The same with other thresholds."""
        calls = tuple(self.call.by_other_thresholds())
        return {key: tuple(call(vector) for call in calls) for key, vector in self.vectors.items()}


@dataclass(frozen=True)
class _Start:
    sample: Mapping[str, Any]
    vectors: Mapping[int, str]


def asked(connection: Connection, asking: Asking) -> Asked | None:
    """None where nothing is stored to ask for."""
    starts = list(_starts(connection, asking))
    size = next((s for s in asking.served if any(s in start.vectors for start in starts)), None)
    if not starts:
        return None
    starts = [start for start in starts if size in start.vectors] or starts
    call = _call(connection, asking, starts, size)
    any_row = {s: vector for start in reversed(starts) for s, vector in start.vectors.items()}
    asked_with, shown = dict[tuple[str, int], str](), set[str]()
    for role in asking.roles:
        vectors, is_shown = dict(any_row), False
        if size is not None and asking.query is not None:
            own, is_shown = _shown(connection, asking, call, role, size, starts)
            vectors |= own
        asked_with |= {(role, s): vector for s, vector in vectors.items()}
        shown |= {role} if is_shown else set()
    return Asked(call, asked_with, frozenset(shown))


def _call(connection: Connection, asking: Asking, starts: Sequence[_Start], size: int | None) -> Call:
    """The arguments that show most in no time, to the first who finds anything."""
    end, best = time.monotonic() + SECONDS, next(_calls(asking, starts[0]))
    most: Worth = (False, False, False, 0)
    for role, start in product(asking.roles if size is not None else (), starts):
        vector = start.vectors.get(size or 0, "")
        for call in _calls(asking, start):
            worth = _worth(connection, asking, call, role, vector, size or 0)
            best, most = (call, worth) if worth > most else (best, most)
            if most[:2] == (True, True) or time.monotonic() > end:
                break
        if most[0] or time.monotonic() > end:
            break
    if most[:2] != (True, True):
        return best
    for call in best.by_other_thresholds():  # other counts would show less
        if most >= (True, True, True, FEW if asking.function.returns_set else 1) or time.monotonic() > end:
            break
        worth = _worth(connection, asking, call, role, vector, size or 0)
        best, most = (call, worth) if worth > most else (best, most)
    return best


def _calls(asking: Asking, start: _Start) -> Iterator[Call]:
    return calls(asking.function, asking.query, start.sample, asking.dropped)


def timed(ask: Callable[[], Answer]) -> tuple[Answer, float]:
    """What a call gives, and the seconds that it takes: the least of several times, since the first call of a session, or one on
    a busy server, takes longer than the function does."""
    least = math.inf
    for _ in range(TIMES):
        started = time.perf_counter()
        answer = ask()
        least = min(least, time.perf_counter() - started)
        if least < QUICK:
            break
    return answer, least


def _worth(connection: Connection, asking: Asking, call: Call, role: str, vector: str, size: int) -> Worth:
    try:
        answer, seconds = timed(lambda: asking.ask(connection, call(vector), role, EACH))
        itself = not asking.keys(answer) or _by_itself(connection, asking, call, role, asking.keys(answer)[0], size)
    except errors.QueryCanceled:
        return False, False, False, 0
    return bool(answer.rows), itself, seconds < QUICK, min(len(answer.rows), FEW)


def _by_itself(connection: Connection, asking: Asking, call: Call, role: str, key: Key, size: int) -> bool:
    """Whether a row is found by its own vector."""
    if asking.query is None:
        return True
    vector = asking.vectors(connection, key, {size: asking.served[size]}).get(size)
    return vector is not None and key in asking.keys(asking.ask(connection, call(vector), role, EACH))


def _shown(
    connection: Connection, asking: Asking, call: Call, role: str, size: int, starts: Sequence[_Start]
) -> tuple[Mapping[int, str], bool]:
    """The vectors of a row that the function shows a role, and whether by its own vector."""
    for start in starts:
        answer = asking.ask(connection, call(start.vectors[size]), role)
        if answer.refused:
            return {}, False
        for key in asking.keys(answer)[:FEW]:
            vectors = asking.vectors(connection, key, asking.wanted)
            if asking.wanted.keys() <= vectors.keys() and _by_itself(connection, asking, call, role, key, size):
                return vectors, True
        if answer.rows:
            return start.vectors, False
    return {}, False


def _starts(connection: Connection, asking: Asking) -> Iterator[_Start]:
    """Some rows, those first that have all vectors; none of these is zero, from which all is equally far."""
    operator = f"OPERATOR({pgvector_schema(connection)}.<#>)"
    key, live = ", ".join(column.quoted for column in asking.live.key), asking.live
    keys = dict[Key, None]()
    for model in asking.wanted.values():
        select = _nonzero(model, key, operator) + sql.SQL(" LIMIT {}").format(STARTS)
        keys |= dict.fromkeys(connection.execute(select).fetchall())
    where = sql.SQL(" AND ".join(f"t.{column.quoted} = %s::{column.cast}" for column in live.key))
    sampled = sql.SQL("SELECT to_jsonb(t) FROM {} AS t WHERE ").format(live.identifier) + where
    starts = list[_Start]()
    for values in keys:
        row = connection.execute(sampled, values).fetchone()
        starts.append(_Start(row[0] if row else {}, asking.vectors(connection, values, asking.wanted)))
    yield from sorted(starts, key=lambda start: -len(start.vectors))


def _nonzero(model: Model, what: str, operator: str) -> sql.Composed:
    return sql.SQL("SELECT {what} FROM {place} WHERE ({c} {operator} {c}) < 0").format(
        what=sql.SQL(what),
        place=sql.Identifier(model.place_schema, model.place_name),
        c=sql.SQL(quoted(model.column_name)),
        operator=sql.SQL(operator),
    )
