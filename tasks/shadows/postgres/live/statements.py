"""The statements that write the rows of a live table's new vectors, and guard them: those of sql/sync_live_*.sql, bound once for
a place.

A page travels as arrays: the rows' names first, then what a statement says.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from psycopg import sql

from sql import statement
from tasks.shadows.postgres.columns import called
from tasks.shadows.postgres.handing_over import WRITING
from tasks.shadows.postgres.live.place import numbered_id, side_table
from tasks.shadows.postgres.live.writing import FAR, page, writing
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.vectors import Vectors
from tasks.stores.postgres.wire import KEYS


@dataclass(frozen=True)
class Statements:
    """Of one place. ``p`` is the page, ``b`` the live table, ``s`` the table of what is known of each row."""

    copies: bool
    """Whether new rows get there by COPY: not into the table itself, and not where their keys have no binary format here."""
    into: sql.Composed
    """What a COPY goes into: key, content_hash, embedding."""
    write: sql.Composed
    """Page: content_hash, embedding. Vectors where rows may be there, and what is known of each; what people read only where the
    text is still the one that was embedded. Where others may be writing the same, it gives the rows that are right then."""
    update_old: sql.Composed
    """Page: content_hash, embedding. The same of the old vectors."""
    overtaken: sql.Composed
    """Page: content_hash. The rows that say something else by now."""
    note: sql.Composed
    """Puts ids, an array, on the queue."""
    passed_by: sql.Composed
    """The same of rows that were passed by, since somebody has them at hand."""
    done: sql.Composed
    """Takes entries, an array of their numbers, off the queue."""
    refuse: sql.Composed
    """Page: content_hash, refused."""
    remove: sql.Composed
    """Page: names. What is known of them."""
    empty: sql.Composed
    """Page: names. Their vectors, where these do not go with what is known."""
    piece: sql.Composed
    """What begins a piece of rows and its transaction: as ``begin``, without a wait for its commit."""
    begin: sql.Composed
    """What comes before the new column is written: from then on nobody renames columns, and no trigger of ours notes what is
    written. Gives the application's triggers that fire, and whether the column is still called so."""
    begin_old: sql.Composed
    """The same of the old column."""
    unlike: sql.Composed
    """Page: embedding. The rows whose vector in the column is another one, or none."""
    rows: sql.Composed
    """Page: names. Their hashes, and what their columns hold; they are locked."""
    known: sql.Composed
    """Page: names. Those of which something is known."""
    truncated: sql.Composed
    """Removes what is known of rows that are there no longer."""
    moved: sql.Composed
    """Puts rows on the queue that are meant by now and were not, or the other way round."""


@lru_cache(maxsize=256)
def statements_of(place: LivePlace) -> Statements:
    """The statements of a place."""
    live, kind = place.live, place.layout.type
    where = writing(place)
    table: dict[str, Any] = {"schema": live.schema, "table": live.table}
    side: dict[str, Any] = {"side": place.shadow, "keys": sql.SQL(", ".join(live.numbered()))}
    same, hashed = sql.SQL(live.same("p", "b")), sql.SQL(live.hash("b"))
    names, hashes = page(live), page(live, "content_hash bytea")
    return Statements(
        copies=place.in_shadow and all(column.type in KEYS for column in live.key),
        into=sql.SQL("{} ({}, content_hash, embedding)").format(side_table(place), side["keys"]),
        write=where.write,
        update_old=where.update_old,
        overtaken=statement(
            "sync_live_overtaken", **table, id=sql.SQL(numbered_id(place, "p")), page=hashes, same=same, hash=hashed
        ),
        note=statement("sync_live_note", queue=place.queue, ids=sql.Placeholder()),
        passed_by=statement("sync_live_passed_by", queue=place.queue, ids=sql.Placeholder()),
        done=statement("sync_live_done", queue=place.queue, entries=sql.Placeholder()),
        refuse=statement("sync_live_refuse", **side, page=page(live, "content_hash bytea", "refused text")),
        remove=statement(
            "sync_live_remove",
            side=place.shadow,
            page=names,
            same=sql.SQL(" AND ".join(f"s.{n} = p.{n}" for n in live.numbered())),
        ),
        empty=where.empty,
        # The batch's own commit waits for the pieces' too.
        piece=sql.SQL("BEGIN; SET LOCAL synchronous_commit = off; {}").format(_begin(place, "new", place.vectors)),
        begin=_begin(place, "new", place.vectors),
        begin_old=_begin(place, "old", live.old),
        unlike=statement(
            "sync_live_unlike",
            id=sql.SQL(numbered_id(place, "p")),
            page=page(live, f"embedding {kind}"),
            far=FAR,
            **_vectors(place),
        ),
        rows=statement(
            "sync_live_rows", **table, id=sql.SQL(numbered_id(place, "p")), hash=hashed, page=names, same=same
        ),
        known=statement("sync_live_known", **side, id=sql.SQL(numbered_id(place, "s")), page=names),
        truncated=where.truncated,
        moved=statement(
            "sync_live_moved",
            live_id=sql.SQL(live.id("b")),
            side_id=sql.SQL(numbered_id(place, "s")),
            first=live.key[0].name,
            document=sql.SQL(live.document("b")),
            rows=live.relation,
            side=place.shadow,
            same=sql.SQL(live.same("s", "b")),
            queue=place.queue,
        ),
    )


def firing(live: LiveTable, column: str) -> sql.Composed:
    """The application's triggers that fire when the column is written, as an array of their names."""
    return sql.SQL("SELECT ARRAY({})").format(triggers(live, column))


def _vectors(place: LivePlace) -> dict[str, Any]:
    """Where the new vectors are: table, column, and whether a row of it, ``b``, has the key of one of a page, ``p``."""
    vectors = place.vectors
    same = sql.SQL(vectors.same("b", place.live.numbered("p")))
    return {"schema": vectors.schema, "table": vectors.table, "column": vectors.column, "same": same}


def _begin(place: LivePlace, which: str, vectors: Vectors) -> sql.Composed:
    if (vectors.schema, vectors.table) != (place.live.schema, place.live.table):
        return sql.SQL("SET LOCAL {} = 'on'; SELECT ARRAY[]::text[], true").format(sql.SQL(WRITING))
    return sql.SQL(
        "SET LOCAL {} = 'on'; LOCK TABLE {} IN ROW EXCLUSIVE MODE; "
        "SELECT ARRAY({}), coalesce((SELECT c.{} = {} FROM ({}) AS c (new, old)), true)"
    ).format(
        sql.SQL(WRITING),
        place.live.identifier,
        triggers(place.live, vectors.column),
        sql.Identifier(which),
        sql.Literal(vectors.column),
        called(place),
    )


def triggers(live: LiveTable, column: str) -> sql.Composed:
    """The query of their names."""
    return sql.SQL(
        "SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = to_regclass({}) AND NOT t.tgisinternal "
        "AND t.tgtype & 16 <> 0 AND t.tgenabled IN ('O', 'A') "
        "AND t.tgfoid IS DISTINCT FROM to_regproc('vecferry.note_change')::oid "
        "AND t.tgfoid IS DISTINCT FROM to_regproc('vecferry.write_beside')::oid "
        "AND (t.tgattr::text = '' OR EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = t.tgrelid AND a.attname = {} "
        "AND a.attnum = ANY(t.tgattr))) ORDER BY 1"
    ).format(sql.Literal(live.identifier.as_string()), sql.Literal(column))


def restoring(place: LivePlace, column: str) -> sql.Composed:
    """What writes old vectors back into another column, and tells what became of each. Page: content_hash, embedding."""
    live = place.live
    return statement(
        "restore_fill",
        schema=live.schema,
        table=live.table,
        column=column,
        id=sql.SQL(numbered_id(place, "p")),
        page=page(live, "content_hash bytea", f"embedding {live.layout.type}"),
        same=sql.SQL(live.same("p", "b")),
        hash=sql.SQL(live.hash("b")),
        first=live.key[0].name,
        keys=sql.SQL(", ".join(live.numbered())),
        page_keys=sql.SQL(", ".join(live.numbered("p"))),
    )
