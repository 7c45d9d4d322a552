"""The statements of statements.py that differ by where the vectors lie: in the table, in the table of what is known of each row,
or in one of the application's, a row for each row and model."""

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from sql import statement
from tasks.shadows.postgres.live.place import numbered_id
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.vectors import Vectors

FAR = 1e-3
"""Cosine distance from the model's own vector from which one that is stored is not the model's. Half precision makes less."""


@dataclass(frozen=True)
class Writing:
    """As Statements has them."""

    write: sql.Composed
    empty: sql.Composed
    truncated: sql.Composed
    update_old: sql.Composed


def writing(place: LivePlace) -> Writing:
    """The statements of a place."""
    if place.vectors.of:
        return Writing(_fill(place), _take(place), _truncated_by_model(place), _update_old(place))
    live = place.live
    table = {"schema": live.schema, "table": live.table}
    empty = statement(
        "sync_live_empty", **table, column=place.new_column, page=page(live), same=sql.SQL(live.same("p", "b"))
    )
    truncated = statement("sync_live_truncated", **table, side=place.shadow, same=sql.SQL(live.same("s", "b")))
    return Writing(_column(place) if place.in_table else _upsert(place), empty, truncated, _update_old(place))


def page(live: LiveTable, *more: str) -> sql.SQL:
    """A page as a table: the key columns, then ``more`` (name and type)."""
    columns = [("id", "text"), *(column.split() for column in more)]
    arrays, names = (", ".join(part) for part in zip(*((f"%b::{kind}[]", name) for name, kind in columns), strict=True))
    keys = [f"{part} AS {n}" for part, n in zip(live.parts("t.id"), live.numbered(), strict=True)]
    chosen = ", ".join([*keys, *(name for name, _ in columns[1:])])
    return sql.SQL(f"(SELECT {chosen} FROM unnest({arrays}) AS t ({names})) AS p")


def _column(place: LivePlace) -> sql.Composed:
    live = place.live
    return statement(
        "sync_live_fill",
        schema=live.schema,
        table=live.table,
        column=place.new_column,
        same=sql.SQL(live.same("p", "b")),
        hash=sql.SQL(live.hash("b")),
        page_keys=sql.SQL(", ".join(live.numbered("p"))),
        **_known(place),
        **_filled(place),
    )


def _upsert(place: LivePlace) -> sql.Composed:
    return statement("sync_live_upsert", **_known(place), **_filled(place))


def _fill(place: LivePlace) -> sql.Composed:
    known = sql.SQL(numbered_id(place, "w"))
    return statement("sync_model_fill", id=known, **_by_model(place, place.vectors), **_filled(place))


def _update_old(place: LivePlace) -> sql.Composed:
    live, old = place.live, place.live.old
    filled = page(live, "content_hash bytea", f"embedding {live.layout.type}")
    if old.of:
        known = sql.SQL(numbered_id(place, "p"))
        return statement("sync_model_fill_old", id=known, page=filled, **_by_model(place, old))
    same, hashed = sql.SQL(live.same("p", "b")), sql.SQL(live.hash("b"))
    where = {"schema": live.schema, "table": live.table, "column": live.vectors}
    return statement("sync_live_fill_old", page=filled, same=same, hash=hashed, **where)


def _take(place: LivePlace) -> sql.Composed:
    live, vectors = place.live, place.vectors
    pairs = zip(live.numbered("s"), live.numbered("p"), strict=True)
    return statement(
        "sync_model_empty",
        schema=vectors.schema,
        table=vectors.table,
        same=sql.SQL(vectors.same("v", live.numbered("p"))),
        side=place.shadow,
        known=sql.SQL(" AND ".join(f"{known} = {paged}" for known, paged in pairs)),
        page=page(live),
        live_schema=live.schema,
        live=live.table,
        live_same=sql.SQL(live.same("p", "b")),
        document=sql.SQL(live.document("b")),
        meant=sql.SQL(live.only.sql("b") if live.only else "true"),
    )


def _truncated_by_model(place: LivePlace) -> sql.Composed:
    live, vectors = place.live, place.vectors
    return statement(
        "sync_model_truncated",
        schema=vectors.schema,
        table=vectors.table,
        vector=sql.SQL(vectors.same("v", live.numbered("s"))),
        live_schema=live.schema,
        live=live.table,
        side=place.shadow,
        same=sql.SQL(live.same("s", "b")),
    )


def _by_model(place: LivePlace, vectors: Vectors) -> dict[str, Any]:
    """Where vectors of one model lie, and the live table that they are of."""
    assert vectors.of
    live, (chunk,), (model, number) = place.live, vectors.keys, vectors.of
    return {
        "schema": vectors.schema,
        "table": vectors.table,
        "column": vectors.column,
        "chunk": chunk,
        "model": model,
        "number": sql.SQL(number),
        "key": sql.SQL(f"b.{live.key[0].quoted}"),
        "same": sql.SQL(live.same("p", "b")),
        "vector": sql.SQL(vectors.same("v", live.numbered("s"))),
        "hash": sql.SQL(live.hash("b")),
        "live_schema": live.schema,
        "live": live.table,
        "far": FAR,
        **_known(place),
    }


def _known(place: LivePlace) -> dict[str, Any]:
    return {"side": place.shadow, "keys": sql.SQL(", ".join(place.live.numbered()))}


def _filled(place: LivePlace) -> dict[str, Any]:
    return {"page": page(place.live, "content_hash bytea", f"embedding {place.layout.type}")}
