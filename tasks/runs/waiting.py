"""The rows that changed and wait in the queue of their target: how many, and since when."""

from dataclasses import dataclass

from psycopg import sql

from tasks.base.words import counted, duration
from tasks.stores.place import Place
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import SCHEMA


@dataclass(frozen=True)
class Waiting:
    """What of a queue people are told."""

    rows: int
    oldest_seconds: float | None
    """None where none waits, and of a queue of an earlier version, which did not note it."""

    def __str__(self) -> str:
        age = "" if self.oldest_seconds is None else f", the oldest for {duration(self.oldest_seconds)}"
        return f"{counted(self.rows, 'row')} in the queue{age}"


def waiting(connection: Connection, place: Place) -> Waiting | None:
    """The rows that wait now; None where the place has no queue, or has it no longer, or the role may not read it."""
    if place.queue is None:
        return None
    queue = sql.Identifier(SCHEMA, place.queue)
    if not relations.may_read(connection, queue):
        return None
    since = sql.SQL("min(noted_at)" if relations.has_column(connection, queue, "noted_at") else "NULL::timestamptz")
    # A TRUNCATE is noted without a name.
    row = connection.execute(
        sql.SQL(
            "SELECT count(DISTINCT coalesce(id, '')), extract(epoch FROM clock_timestamp() - {})::float8 FROM {}"
        ).format(since, queue)
    ).fetchone()
    assert row
    return Waiting(row[0], None if row[1] is None else max(0.0, row[1]))
