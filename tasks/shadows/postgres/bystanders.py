"""What else of a row changes when a vector is written into a live table: the application's triggers fire for that.

What the migration stands on must not change, its key, its text and whatever vectors it has: else what was written is rolled back,
and the run stops. What else changes, such as the time of the last change, is told.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tasks.base.errors import FatalError, VecferryError
from tasks.base.words import counted
from tasks.runs.commands import command
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.postgres.live.statements import statements_of
from tasks.stores.postgres.connection import Connection, classified_error
from tasks.stores.postgres.places import LivePlace

logger = logging.getLogger("vecferry")


class WriteRefused(VecferryError):
    """A trigger of the application's raises for rows of a batch, which fails with them."""


@dataclass
class Told:
    """The columns that were told of, so that each is told once."""

    columns: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Row:
    """A row of the live table."""

    hash: bytes | None
    """Of its text."""
    columns: dict[str, Any]
    """A number for what each holds; None where it is null."""


@contextmanager
def watched(
    run: Run,
    target: Target[LivePlace],
    connection: Connection,
    column: str,
    triggers: Sequence[str],
    ids: Sequence[str],
    hashes: Sequence[bytes | None] = (),
) -> Iterator[None]:
    """While the body writes the column of these rows, in a transaction, on which ``triggers`` fire: raises FatalError, so that it
    is rolled back, where one changes what the migration stands on, or does not let it be written. With ``hashes``, of the texts,
    each row that still says its text gets a vector."""
    before = _rows(connection, target, ids)
    try:
        yield
    except psycopg.Error as error:
        if error.diag.context and classified_error("", error) is error:
            words = " ".join((error.diag.message_primary or "").split())
            raise WriteRefused(
                f"{target.collection.name}: writing {column} is refused ({words}), {_by(triggers)}. {_way_on(run, target, column)}"
            ) from error
        raise
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # what is deferred would come too late
    after = _rows(connection, target, ids)
    changed = Counter(
        name
        for i, row in before.items()
        for name in row.columns
        if name != column and row.columns[name] != after.get(i, Row(None, {})).columns.get(name)
    )
    if lost := [name for name in kept(connection, target) if changed[name]]:
        rows = f"{max(changed[name] for name in lost):,} of {counted(len(before), 'row')}"
        what = f"writing {column} changes {', '.join(lost)} too, in {rows}"
        raise _refusal(run, target, column, what, triggers)
    sent = dict(zip(ids, hashes, strict=False))
    unwritten = [i for i, r in after.items() if sent.get(i) and r.hash == sent[i] and r.columns[column] is None]
    if unwritten:
        rows = f"{len(unwritten):,} of {counted(len(before), 'row')}"
        raise _refusal(run, target, column, f"{column} stays empty when it is written, in {rows}", triggers)
    _tell(run, target, column, changed, triggers)


def _rows(connection: Connection, target: Target[LivePlace], ids: Sequence[str]) -> dict[str, Row]:
    rows = connection.execute(statements_of(target.place).rows, (list(ids),), prepare=False)
    return {name: Row(hashed, columns) for name, hashed, columns in rows}


def kept(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """The columns that must not change: those of the key and the text, and all vectors."""
    live = target.place.live
    vectors = connection.execute(
        "SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass(%s) "
        "AND NOT a.attisdropped AND t.typname IN ('vector', 'halfvec', 'sparsevec') ORDER BY a.attnum",
        (live.identifier.as_string(),),
    ).fetchall()
    return [*dict.fromkeys([*(c.name for c in live.key), *live.columns, *(name for (name,) in vectors)])]


def _refusal(run: Run, target: Target[LivePlace], column: str, what: str, triggers: Sequence[str]) -> FatalError:
    return FatalError(
        f"{target.collection.name}: {what}, {_by(triggers)}. That was rolled back, and the run stops here. {_way_on(run, target, column)}"
    )


def _by(triggers: Sequence[str]) -> str:
    return f"by the trigger {triggers[0]}" if len(triggers) == 1 else f"by one of the triggers {', '.join(triggers)}"


def _way_on(run: Run, target: Target[LivePlace], column: str) -> str:
    if column not in (target.place.new_column, target.place.live.vectors):
        return f"Have the trigger let {column} be written and nothing else change, or disable it in the meantime"
    rollback = command("rollback", run.run_id, run.plan.request.database)
    return (
        f"Have the trigger let {target.place.new_column} be written and nothing else change, or take this run back, {rollback}, "
        "and start one with layout=side_table, which writes to no row of the table"
    )


def _tell(run: Run, target: Target[LivePlace], column: str, changed: Counter[str], triggers: Sequence[str]) -> None:
    told = run.own(Told, Told)
    if new := sorted(set(changed) - told.columns):
        told.columns.update(new)
        logger.warning(
            "%s: writing %s changes %s too, by %s%s",
            target.collection.name,
            column,
            ", ".join(new),
            ", ".join(triggers),
            "; layout=side_table avoids that" if column == target.place.new_column else "",
        )
