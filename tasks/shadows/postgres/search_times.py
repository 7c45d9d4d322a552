"""How long search functions take. A switch calls each of them, and may not last: what could never be switched is refused by the plan.
They are called with a stored vector, and can write nothing meanwhile."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

from psycopg import errors, sql

from tasks.base.words import counted
from tasks.runs.plan import Request, Target
from tasks.shadows.postgres import probe, search_functions
from tasks.shadows.postgres.arguments import Call, calls
from tasks.shadows.postgres.asking import EACH, LONGEST, SECONDS
from tasks.shadows.postgres.called import look_up, origin_of
from tasks.shadows.postgres.choice import stays_inlined
from tasks.shadows.postgres.underivable import Underivable
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import shown
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.pgvector import vector_bytes
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.syntax import NotParsed, statements

TIMES = 5
"""How often a slow call is made: its least time is the function's own, the others are also its neighbours'."""
CHUNK = 2000
"""Bytes that lie together of a value that lies outside its row."""
BUSY = 0.25
"""Of the time that a switch may take, what a busy server may turn into all of it."""
OWN = (
    "sortClause",
    "limitCount",
    "limitOffset",
    "groupClause",
    "distinctClause",
    "windowClause",
    "havingClause",
    "withClause",
)
"""What keeps PostgreSQL from taking a query apart within another."""
FETCH = 1e-6
"""Seconds that fetching these takes at least: 6,000 vectors of 1,536 dimensions took 25 ms."""


@dataclass(frozen=True)
class Timed:
    """A call, of which as many rows were computed as a switch will ask for."""

    seconds: float
    rows: int
    open: bool
    """Whether a LIMIT of its callers ends the search, and will no longer."""


@dataclass(frozen=True)
class Caller:
    """Who calls, by which vector."""

    connection: Connection
    target: Target[LivePlace]
    role: str
    vector: str
    settings: Mapping[str, str]
    inlined: bool
    """Whether PostgreSQL puts the function into the query of its callers, and will do so once it is switched."""

    def timed(self, call: Call) -> Timed | None:
        """None where the call fails."""
        whole = call(self.vector) if self.inlined else call.in_full(self.vector)
        statement = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {whole}"
        try:
            answer = probe.ask(self.connection, statement, self.role, self.settings, EACH)
        except errors.QueryCanceled:  # as many as there may be
            return Timed(LONGEST, self.target.collection.count, False)
        if answer.refused:
            return None
        (report,) = answer.rows[0][0]
        plan = report["Plan"]
        inlined = plan["Node Type"] != "Function Scan"
        return Timed(report["Execution Time"] / 1000, int(plan["Actual Rows"]), inlined and not _limited(plan))


def looked_at(connection: Connection, request: Request, target: Target[LivePlace]) -> tuple[list[str], list[str]]:
    """What keeps the search functions of a target from being switched in time, and what is to be known of them."""
    settings: Mapping[str, str] = request.own.get("probe_settings", {})
    problems, warnings = list[str](), list[str]()
    for name in target.place.functions:
        if name != target.place.write_function and (times := _times(connection, target, name, settings)):
            problems += _problems(target, name, times)
            warnings += _warnings(target, name, times)
            warnings += _unordered(connection, target, name)
    return problems, warnings


def _problems(target: Target[LivePlace], name: str, times: Sequence[Timed]) -> Iterator[str]:
    called, way_on = shown(target.place.schema, name), "or name another function with `function`"
    least, rows = min(t.seconds for t in times), max(t.rows for t in times)
    if least > probe.LIMIT:
        yield (
            f"{called} takes {least * 1000:.0f} ms as it is, and a switch of it may take {probe.LIMIT * 1000:.0f} ms in all: make it "
            f"faster, {way_on}"
        )
        return
    seconds = _compared(target, rows)
    if rows > probe.COMPARED and seconds > probe.LIMIT and not target.place.body_of(name):
        yield (
            f"{_at_least(target, name, rows)}. Give it a LIMIT, give its body for the new vectors with `function_sql`, {way_on}"
        )


def _compared(target: Target[LivePlace], rows: int) -> float:
    """Seconds that a query takes at least to be compared with as many new vectors."""
    width = vector_bytes(target.dimensions or 0, target.place.layout.type)
    return rows * ceil(width / CHUNK) * FETCH if width > CHUNK else 0


def _at_least(target: Target[LivePlace], name: str, rows: int) -> str:
    return (
        f"{shown(target.place.schema, name)} returns {counted(rows, 'row')}: to compare a query with as many vectors of "
        f"{counted(target.dimensions or 0, 'dimension')} takes {_compared(target, rows) * 1000:.0f} ms and more, and a switch of it "
        f"may take {probe.LIMIT * 1000:.0f} ms in all"
    )


def _warnings(target: Target[LivePlace], name: str, times: Sequence[Timed]) -> Iterator[str]:
    most = max(times, key=lambda t: t.rows)
    if most.rows <= probe.COMPARED:
        return
    if most.open:
        yield (
            f"{shown(target.place.schema, name)} has no LIMIT, and that of its callers ends a search early now: from the cutover on each "
            f"call computes all of them, here {counted(most.rows, 'row')}. Give it a LIMIT of its own"
        )
    if probe.LIMIT * BUSY < _compared(target, most.rows) <= probe.LIMIT and not target.place.body_of(name):
        yield f"{_at_least(target, name, most.rows)}, which a busy server may not allow. Give it a LIMIT of its own"


def _unordered(connection: Connection, target: Target[LivePlace], name: str) -> Iterator[str]:
    """Whether callers may search by index now whom a choice between two models keeps from it: PostgreSQL orders by an index what it takes
    apart, and no longer what stands beside another search."""
    origin, rows = origin_of(connection, target, name), target.collection.count
    if origin is None or rows <= probe.COMPARED or not stays_inlined(origin.function, target.place):
        return
    with suppress(NotParsed):
        *_, last = statements(origin.function.body)
        select = last.tree.get("SelectStmt", {})
        if select.get("op", "SETOP_NONE") == "SETOP_NONE" and not any(select.get(clause) for clause in OWN):
            yield (
                f"{shown(target.place.schema, name)} has no ORDER BY, and callers that order what it returns by a distance search by an "
                f"index now: from the cutover on each call compares all rows, here {counted(rows, 'row')}. Give it an ORDER BY of its own"
            )


def _times(
    connection: Connection, target: Target[LivePlace], name: str, settings: Mapping[str, str]
) -> Sequence[Timed]:
    """Calls by the arguments that find rows soonest, and by those that find most; none where nobody whom we may be finds any."""
    called = look_up(connection, target, name)
    function, origin = called.function, called.origin
    if function is None or origin is None:
        return []
    with suppress(Underivable), pace.turn(connection), connection.transaction(force_rollback=True):
        query = search_functions.searching(connection, target, origin, name).query
        connection.execute("SET TRANSACTION READ ONLY")
        sample, vector = sampled(connection, target.place.live), _stored(connection, target)
        tries, inlined = list(calls(function, query, sample)), stays_inlined(origin.function, target.place)
        for role in probe.roles(connection, function) if vector else ():
            who = Caller(connection, target, role.name, vector or "", settings, inlined)
            if role.taken and (times := _of_role(who, tries)):
                return times
    return []


def _of_role(caller: Caller, tries: Sequence[Call]) -> list[Timed]:
    """Times of the first call that finds rows, of the same by other thresholds, and, where these are long, of the fastest again."""
    end, times = time.monotonic() + SECONDS, dict[Call, list[Timed]]()
    for call in tries:
        if (timed := caller.timed(call)) and timed.rows:
            times[call] = [timed]
            break
        if timed is None or time.monotonic() > end:
            return []
    for other in next(iter(times)).by_other_thresholds() if times else ():
        if time.monotonic() < end and (timed := caller.timed(other)) and timed.rows:
            times[other] = [timed]
    while times:
        fastest = min(times, key=lambda call: times[call][0].seconds)
        if times[fastest][0].seconds < probe.LIMIT or len(times[fastest]) == TIMES or time.monotonic() > end:
            break
        times[fastest] = sorted([*times[fastest], caller.timed(fastest) or times[fastest][0]], key=lambda t: t.seconds)
    return [t for several in times.values() for t in several]


def _stored(connection: Connection, target: Target[LivePlace]) -> str | None:
    """A vector that the functions search now; None where there is none."""
    live = target.place.live
    row = connection.execute(
        sql.SQL("SELECT {0}::text FROM {1} WHERE {0} IS NOT NULL LIMIT 1").format(
            sql.Identifier(live.old.column), live.old.identifier
        )
    ).fetchone()
    return row[0] if row else None


def sampled(connection: Connection, live: LiveTable) -> dict[str, Any]:
    """A row of the table, by its columns; empty where there is none."""
    row = connection.execute(
        sql.SQL("SELECT to_jsonb(t) FROM {} AS t WHERE {} IS NOT NULL LIMIT 1").format(
            live.identifier, sql.SQL(live.document("t"))
        )
    ).fetchone()
    return row[0] if row else {}


def _limited(plan: Mapping[str, Any]) -> bool:
    return plan["Node Type"] == "Limit" or any(map(_limited, plan.get("Plans", ())))
