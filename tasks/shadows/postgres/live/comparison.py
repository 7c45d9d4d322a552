"""A live table held against its new vectors."""

from typing import Any

from psycopg import sql

from sql import statement
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Coverage, Difference, Named, named
from tasks.shadows.postgres.live.place import numbered_id, side_table
from tasks.stores.postgres import pace
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace


def compare(run: Run, target: Target[LivePlace], only: list[str] | None = None) -> Difference:
    """In one statement, and so of one moment: every row is right, or in the queue, or told here."""
    limited = run.plan.limited
    query = statement(
        "sync_live_difference",
        side_id=sql.SQL(numbered_id(target.place, "s")),
        first=target.place.live.key[0].name,
        limited=limited,
        **_both(target),
    )
    with run.connection() as connection, pace.turn(connection):
        counts = {kind: (count, tuple(ids or ())) for kind, count, ids in connection.execute(query)}
    chosen = set(only) if only is not None else None

    def told(kind: str) -> Named:
        count, ids = counts.get(kind, (0, ()))
        if chosen is None:
            return Named(count, ids)
        return named([i for i in ids if i in chosen])

    missing = Named() if limited else told("missing")
    return Difference(
        compared=counts["compared"][0],
        missing=missing,
        stale=told("stale"),
        orphaned=told("orphaned"),
        added=told("added"),
        quarantined=told("quarantined"),
    )


def coverage(run: Run, target: Target[LivePlace]) -> Coverage:
    """Rows with a text and those without a vector by the table alone, in one statement; what is noted of them only says why."""
    with run.connection() as connection, pace.turn(connection):
        row = connection.execute(statement("sync_live_coverage", **_both(target))).fetchone()
    assert row
    rows, without, refused, waiting, ids = row
    return Coverage(rows, without, refused, waiting, Named(without - refused - waiting, tuple(ids or ())))


def _both(target: Target[LivePlace]) -> dict[str, Any]:
    """The table ``b``, and ``s``, what is known of its rows."""
    live = target.place.live
    lacks = f"b.{quoted(target.place.new_column)} IS NULL" if target.place.in_table else "s.lacks IS NOT FALSE"
    return {
        "live_id": sql.SQL(live.id("b")),
        "document": sql.SQL(live.document("b")),
        "hash": sql.SQL(live.hash("b")),
        "lacks": sql.SQL(lacks),
        "rows": live.relation,
        "known": _known(target),
        "same": sql.SQL(live.same("s", "b")),
        "queue": target.place.queue,
    }


def _known(target: Target[LivePlace]) -> sql.Composed:
    """What is known of each row, without its vector: those that lie in their rows would all go through the join."""
    if target.place.in_table:
        return side_table(target.place) + sql.SQL("")
    place, live = target.place, target.place.live
    if place.in_shadow:
        return sql.SQL("(SELECT {}, content_hash, refused, embedding IS NULL AS lacks FROM {} OFFSET 0)").format(
            sql.SQL(", ".join(live.numbered())), side_table(place)
        )
    vectors = place.vectors
    return sql.SQL(
        "(SELECT {}, s.content_hash, s.refused, v.{} IS NULL AS lacks FROM {} AS s LEFT JOIN {} AS v ON {} OFFSET 0)"
    ).format(
        sql.SQL(", ".join(live.numbered("s"))),
        sql.Identifier(vectors.column),
        side_table(place),
        vectors.identifier,
        sql.SQL(vectors.same("v", live.numbered("s"))),
    )
