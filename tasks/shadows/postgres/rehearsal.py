"""A switch that is made and taken back, for what takes longer than a switch may last: every role, exact search, whether the rows
that are found are for the role to see, and whether the index is used."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from tasks.runs.plan import Target
from tasks.shadows.postgres import answers, columns, live_place, probe
from tasks.shadows.postgres.answers import Answer, Answers
from tasks.shadows.postgres.probe import Probe
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.places import LivePlace

EXACT = (
    "SET LOCAL plan_cache_mode = force_custom_plan",  # else a plan that was made before is used
    "SET LOCAL enable_indexscan = off",
    "SET LOCAL enable_indexonlyscan = off",
    "SET LOCAL enable_bitmapscan = off",
)
BY_INDEX = (
    "SET LOCAL plan_cache_mode = force_custom_plan",
    "SET LOCAL enable_seqscan = off",
    "SET LOCAL enable_sort = off",
)
"""What makes a search use the index wherever it can."""
EXACT_SECONDS = 60.0
"""How long exact search may take for all roles; the answers of those who come later are held against the old function alone."""
LOOKED_AT = 3
"""Rows of an answer that are looked for by the old function, where the new one was derived from it."""


def rehearsed(
    connection: Connection,
    target: Target[LivePlace],
    tried: Probe,
    served: Sequence[int],
    kept: Sequence[int],
    made: Sequence[int],
    switch: Callable[[], object],
) -> Probe:
    """The probe, with what exact search gives each role after the ``switch``, for queries of ``made`` dimensions. Before it those
    of ``served`` are answered, those of ``kept`` as after it. Raises VerificationRefused for any difference."""

    def whole() -> tuple[list[str], Probe]:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # what others write would be a difference
        before, second = (_asked(connection, tried, {*served, *kept}) for _ in range(2))
        steady = replace(tried, unsteady=answers.unsteady(before, second))
        was_indexed = any(_uses_index(connection, target, tried, size) for size in served)
        switch()
        after = _asked(connection, tried, kept)
        name, exact, started = tried.function.name, Answers(), time.monotonic()
        lines = answers.differences(name, *map(steady.compared, (before, after)))
        for size in made:
            for role in tried.taken:
                exactly = time.monotonic() - started < EXACT_SECONDS
                answer = tried.ask(connection, role, size, *(EXACT if exactly else ()))
                if exactly:
                    exact[role, size] = answer
                lines += answers.losses(name, before, {(role, size): answer})
                if size not in served:  # else the old function is no longer asked by that name
                    lines += _not_for(connection, target, tried, role, answer)
            if was_indexed and not _uses_index(connection, target, tried, size):
                lines.append(f"{tried.function.name} does not use the index of {target.place.column}")
        return lines, replace(steady, exact=exact)

    lines, proven = locked(connection, whole, keep=False)
    probe.refuse(lines)
    return proven


def _asked(connection: Connection, tried: Probe, sizes: Collection[int]) -> Answers:
    return {(role, size): tried.ask(connection, role, size) for role in tried.taken for size in sizes}


def _uses_index(connection: Connection, target: Target[LivePlace], tried: Probe, dimensions: int) -> bool:
    """Whether a search, as the first who can be tried, looks into an index of vectors where it can."""
    before = _scans(connection, target)
    for role in tried.taken[:1]:
        tried.ask(connection, role, dimensions, *BY_INDEX)
    return _scans(connection, target) != before


def _scans(connection: Connection, target: Target[LivePlace]) -> Mapping[int, int]:
    """How often each index of vectors was looked into in this transaction."""
    places = [target.place.live.identifier.as_string(), live_place.side_table(target.place).as_string()]
    rows = connection.execute(
        "SELECT i.indexrelid::int8, pg_stat_get_xact_numscans(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am a ON a.oid = c.relam WHERE a.amname IN ('hnsw', 'ivfflat') "
        "AND (i.indrelid = ANY(SELECT to_regclass(p) FROM unnest(%s::text[]) p) "
        "OR i.indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(%s)))",
        (places, places[0]),
    ).fetchall()
    return dict(rows)


def _not_for(
    connection: Connection, target: Target[LivePlace], tried: Probe, role: str, answer: Answer
) -> Iterator[str]:
    """Rows that the role does not get from the old function, asked with the old vector of that very row."""
    key = [c.name for c in target.place.live.key]
    if tried.by_vector is None or not set(key) <= set(answer.columns):
        return
    at = [answer.columns.index(name) for name in key]
    for row in answer.rows if target.place.function_sql else answer.rows[:LOOKED_AT]:
        values = [row[n] for n in at]
        vector = _old_vector(connection, target, values)
        if vector is None:
            continue  # nothing to ask the old function with
        for exactly in ((), EXACT):  # an index may miss the very row
            old = probe.ask(connection, tried.by_vector(vector), role, tried.settings, *exactly)
            if any([other[n] for n in at] == values for other in old.rows):
                break
        else:
            if not _all_as_near(old):  # else as many others may come first
                yield (
                    f"as {role}, {tried.function.name} finds the row {', '.join(map(str, values))} by new vectors, "
                    "and not by its old one"
                )


def _old_vector(connection: Connection, target: Target[LivePlace], key: Sequence[object]) -> str | None:
    live = columns.current(connection, target).place.live  # the switch may have renamed it
    where = sql.SQL(" AND ").join(
        sql.SQL("{}::text = {}").format(sql.SQL(column.quoted), sql.Literal(str(value)))
        for column, value in zip(live.key, key, strict=True)
    )
    row = connection.execute(
        sql.SQL("SELECT {}::text FROM {} WHERE {}").format(
            sql.SQL(quoted(live.vectors)), sql.Identifier(live.records.schema, live.records.name), where
        )
    ).fetchone()
    return row[0] if row else None


def _all_as_near(answer: Answer) -> bool:
    """Whether all rows are at one distance, as far as the answer gives distances."""
    distances = [tuple(value for value in row if isinstance(value, float)) for row in answer.rows]
    return bool(distances) and any(distances) and all(d == distances[0] for d in distances)
