"""The SQL that writes the rows of a live table's new vectors, and guards them; composed once for a place.

A page travels as arrays: the rows' names first, then what a statement says.
"""

from dataclasses import dataclass
from functools import lru_cache

from psycopg import sql

from tasks.shadows.postgres.live_place import numbered_id, queue, side_table
from tasks.stores.postgres.live_table import LiveTable, quoted
from tasks.stores.postgres.places import LivePlace


@dataclass(frozen=True)
class Statements:
    """Of one place. ``p`` is the page, ``b`` the live table, ``s`` the table of what is known of each row."""

    into: sql.Composed
    """What a COPY goes into: key, content_hash, embedding."""
    upsert: sql.Composed
    """Page: content_hash, embedding. Beside the table, where rows may be there."""
    update: sql.Composed
    """Page: content_hash, embedding. The column, where the text is still the one that was embedded; then what is known."""
    update_old: sql.Composed
    """Page: content_hash, embedding. The same of the old column."""
    overtaken: sql.Composed
    """Page: content_hash. The rows that say something else by now."""
    note: sql.Composed
    """Puts ids, an array, on the queue."""
    refuse: sql.Composed
    """Page: content_hash, refused."""
    remove: sql.Composed
    """Page: names. What is known of them."""
    empty: sql.Composed
    """Page: names. Their vectors in the column."""
    known: sql.Composed
    """Page: names. Those of which something is known."""
    truncated: sql.Composed
    """Removes what is known of rows that are there no longer."""


@lru_cache(maxsize=256)
def statements_of(place: LivePlace) -> Statements:
    """The statements of a place."""
    live, side, kind = place.live, side_table(place), place.layout.type
    keys = sql.SQL(", ".join(live.numbered()))
    hashed, filled = "content_hash bytea", f"embedding {kind}"
    return Statements(
        into=sql.SQL("{} ({}, content_hash, embedding)").format(side, keys),
        upsert=sql.SQL(
            "INSERT INTO {side} ({keys}, content_hash, embedding) SELECT {keys}, content_hash, embedding FROM {page} "
            "ORDER BY {keys} ON CONFLICT ({keys}) DO UPDATE SET content_hash = excluded.content_hash, "
            "refused = NULL, embedding = excluded.embedding"
        ).format(side=side, keys=keys, page=_page(live, hashed, filled)),
        update=sql.SQL(
            "WITH written AS ({fill} RETURNING {page_keys}, p.content_hash) "
            "INSERT INTO {side} ({keys}, content_hash) SELECT * FROM written ORDER BY {keys} "
            "ON CONFLICT ({keys}) DO UPDATE SET content_hash = excluded.content_hash, refused = NULL"
        ).format(
            fill=_fill(live, place.new_column, kind),
            page_keys=sql.SQL(", ".join(live.numbered("p"))),
            side=side,
            keys=keys,
        ),
        update_old=_fill(live, live.vectors, live.layout.type),
        overtaken=sql.SQL(
            "SELECT {id} FROM {page} LEFT JOIN {live} AS b ON {same} WHERE {hash} IS DISTINCT FROM p.content_hash"
        ).format(
            id=sql.SQL(numbered_id(place, "p")),
            page=_page(live, hashed),
            live=live.identifier,
            same=sql.SQL(live.same("p", "b")),
            hash=sql.SQL(live.hash("b")),
        ),
        note=sql.SQL("INSERT INTO {} (id) SELECT unnest(%s::text[])").format(queue(place)),
        refuse=sql.SQL("INSERT INTO {} ({}, content_hash, refused) SELECT p.* FROM {}").format(
            side, keys, _page(live, hashed, "refused text")
        ),
        remove=sql.SQL("DELETE FROM {} AS s USING {} WHERE {}").format(
            side, _page(live), sql.SQL(" AND ".join(f"s.{n} = p.{n}" for n in live.numbered()))
        ),
        empty=sql.SQL("UPDATE {} AS b SET {} = NULL FROM {} WHERE {} AND {} IS NOT NULL").format(
            live.identifier,
            sql.Identifier(place.new_column),
            _page(live),
            sql.SQL(live.same("p", "b")),
            sql.SQL(f"b.{quoted(place.new_column)}"),
        ),
        known=sql.SQL("SELECT {} FROM {} JOIN {} AS s USING ({})").format(
            sql.SQL(numbered_id(place, "s")), _page(live), side, keys
        ),
        truncated=sql.SQL("DELETE FROM {} AS s WHERE NOT EXISTS (SELECT 1 FROM {} AS b WHERE {})").format(
            side, live.identifier, sql.SQL(live.same("s", "b"))
        ),
    )


def _fill(live: LiveTable, column: str, kind: str) -> sql.Composed:
    """Sets a column of the live table from a page, where the text is still the one that was embedded."""
    return sql.SQL(
        "UPDATE {live} AS b SET {column} = p.embedding FROM {page} WHERE {same} "
        "AND {hash} IS NOT DISTINCT FROM p.content_hash"
    ).format(
        live=live.identifier,
        column=sql.Identifier(column),
        page=_page(live, "content_hash bytea", f"embedding {kind}"),
        same=sql.SQL(live.same("p", "b")),
        hash=sql.SQL(live.hash("b")),
    )


def _page(live: LiveTable, *more: str) -> sql.SQL:
    """A page as a table: the key columns, then ``more`` (name and type)."""
    columns = [("id", "text"), *(column.split() for column in more)]
    arrays, names = (", ".join(part) for part in zip(*((f"%b::{kind}[]", name) for name, kind in columns), strict=True))
    keys = [f"{part} AS {n}" for part, n in zip(live.parts("t.id"), live.numbered(), strict=True)]
    chosen = ", ".join([*keys, *(name for name, _ in columns[1:])])
    return sql.SQL(f"(SELECT {chosen} FROM unnest({arrays}) AS t ({names})) AS p")
