"""A switch that is made and taken back, for what takes longer than a switch may last: every role, exact search, whether the rows
that are found are for the role to see, and whether the index is used."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from psycopg import errors

from tasks.base.words import listed
from tasks.runs.plan import Target
from tasks.shadows.postgres import answers, probe
from tasks.shadows.postgres.answers import Answer, Answers
from tasks.shadows.postgres.asking import EACH, LONGEST, QUICK, Asked, Asking, Key, timed
from tasks.shadows.postgres.live import place
from tasks.shadows.postgres.probe import Probe
from tasks.stores.postgres.connection import Connection
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


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal has shown."""

    probe: Probe
    """With what exact search gives each role after the switch."""
    given: Answers = field(default_factory=dict)
    """What each role is given by new vectors, exactly or not."""
    seconds: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """How long a call by new vectors takes."""


def rehearsed(
    connection: Connection,
    target: Target[LivePlace],
    tried: Probe,
    served: Sequence[int],
    kept: Sequence[int],
    made: Sequence[int],
    switch: Callable[[], object],
) -> Rehearsed:
    """What is answered after the ``switch`` by queries of ``made`` dimensions. Before it those of ``served`` are answered, those of
    ``kept`` as after it. Raises VerificationRefused for any difference."""

    def whole() -> tuple[list[str], Rehearsed]:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # what others write would be a difference
        before, second = (_asked(connection, tried, {*served, *kept}) for _ in range(2))
        steady = replace(tried, unsteady=answers.unsteady(before, second))
        was_indexed = any(_uses_index(connection, target, tried, size) for size in served)
        switch()
        after = _asked(connection, tried, kept)
        name, given, exact = tried.function.name, Answers(), Answers()
        lines = answers.differences(name, *map(steady.compared, (before, after)))
        quickest = {(role, size): _quickest(connection, tried, role, size) for size in made for role in tried.taken}
        calls = {**tried.calls, **{key: call for key, (call, _) in quickest.items()}}
        searching, started = replace(steady, calls=calls), time.monotonic()
        for size in made:
            for role in tried.taken:
                exactly = time.monotonic() - started < EXACT_SECONDS
                answer = searching.ask(connection, role, size, *(EXACT if exactly else ()))
                if exactly:
                    exact[role, size] = answer
                given[role, size] = answer
            lines += answers.losses(name, before, {key: answer for key, answer in given.items() if key[1] == size})
            if was_indexed and not _uses_index(connection, target, searching, size):
                lines.append(f"{name} does not use the index of {target.place.column}")
        seconds = {key: took for key, (_, took) in quickest.items()}
        return lines, Rehearsed(replace(searching, exact=exact), given, seconds)

    lines, proven = locked(connection, whole, keep=False)
    probe.refuse(lines)
    return proven


def _asked(connection: Connection, tried: Probe, sizes: Collection[int]) -> Answers:
    return {(role, size): tried.ask(connection, role, size) for role in tried.taken for size in sizes}


def _quickest(connection: Connection, tried: Probe, role: str, size: int) -> tuple[str, float]:
    """The first call that finds rows in no time, and how long it takes: more rows may come up to a threshold by new vectors than
    did by old ones. Otherwise the one that finds rows soonest."""
    tries = list[tuple[bool, float, str]]()
    for call in (tried.calls[role, size], *tried.others.get((role, size), ())):
        answer, seconds = Answer(), LONGEST
        with suppress(errors.QueryCanceled):
            answer, seconds = timed(lambda call=call: probe.ask(connection, call, role, tried.settings, EACH))  # type: ignore[misc]
        tries.append((not answer.rows, seconds, call))
        if answer.refused or (answer.rows and tries[-1][1] < QUICK):
            break
    _, seconds, call = min(tries)
    return call, seconds


def _uses_index(connection: Connection, target: Target[LivePlace], tried: Probe, dimensions: int) -> bool:
    """Whether a search, as the first who can be tried, looks into an index of vectors where it can."""
    before = _scans(connection, target)
    for role in tried.taken[:1]:
        tried.ask(connection, role, dimensions, *BY_INDEX)
    return _scans(connection, target) != before


def _scans(connection: Connection, target: Target[LivePlace]) -> Mapping[int, int]:
    """How often each index of vectors was looked into in this transaction."""
    places = [target.place.live.identifier.as_string(), place.side_table(target.place).as_string()]
    rows = connection.execute(
        "SELECT i.indexrelid::int8, pg_stat_get_xact_numscans(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am a ON a.oid = c.relam WHERE a.amname IN ('hnsw', 'ivfflat') "
        "AND (i.indrelid = ANY(SELECT to_regclass(p) FROM unnest(%s::text[]) p) "
        "OR i.indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(%s)))",
        (places, places[0]),
    ).fetchall()
    return dict(rows)


def looked_for(connection: Connection, asking: Asking, asked: Asked, given: Answers) -> list[str]:
    """Looks for the rows that each role was ``given`` by new vectors among those that the function shows it now, asked with the old
    vector of each. Returns the roles whose rows cannot be told apart. Raises Different for rows that are not shown."""

    def whole() -> tuple[list[str], list[str]]:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        lines, unlooked = list[str](), list[str]()
        for (role, _), answer in given.items():
            if not answer.rows:
                continue
            if role not in asked.shown or not asking.keys(answer):
                unlooked.append(role)
            elif hidden := list(_hidden(connection, asking, asked, role, answer)):
                lines.append(
                    f"for a new query {asking.function.name} shows {role} what its own old vector does not find: {listed(hidden)}"
                )
        return lines, unlooked

    lines, unlooked = locked(connection, whole, keep=False)
    probe.refuse(lines)
    return list(dict.fromkeys(unlooked))


def _hidden(connection: Connection, asking: Asking, asked: Asked, role: str, answer: Answer) -> Iterator[str]:
    """Rows of an answer that the role does not get by their own old vectors."""
    seen = set[Key]()
    for key in asking.keys(answer):
        vector = next(iter(asking.vectors(connection, key, asking.served).values()), None)
        if key in seen or vector is None:
            continue  # nothing to ask the old function with
        for exactly in ((), EXACT):  # an index may miss the very row
            old = asking.ask(connection, asked.call(vector), role, *exactly)
            seen |= set(asking.keys(old))
            if key in seen or _all_as_near(old):  # as many others may come first
                break
        else:
            yield f"row {', '.join(map(str, key))}"


def _all_as_near(answer: Answer) -> bool:
    """Whether there are several rows at one distance, and none at another, as far as the answer gives distances."""
    distances = [tuple(value for value in row if isinstance(value, float)) for row in answer.rows]
    return len(distances) > 1 and any(distances) and all(d == distances[0] for d in distances)
