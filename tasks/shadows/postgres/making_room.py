"""Vectors that an application adds to a table in which a run keeps those of the same rows and models: its own INSERTs win, and never
fail because the run was there first."""

from psycopg import sql

from sql import statement
from tasks.stores.postgres.places import LivePlace


def trigger_statement(place: LivePlace, name: str) -> sql.Composed:
    """The trigger that has them win, over vectors of the new model and of the old one."""
    vectors = place.vectors
    assert vectors.of
    (model, number), (chunk,) = vectors.of, vectors.keys
    numbers = [number, *([place.live.old.of[1]] if place.live.old.of else [])]
    return statement(
        "expand_making_room",
        trigger_room=name,
        schema=vectors.schema,
        table=vectors.table,
        chunk=chunk,
        model=model,
        numbers=sql.SQL(", ".join(numbers)),
        live=place.live.identifier.as_string(),
        key=place.live.key[0].name,
        side=place.shadow,
    )


def drop_statement(place: LivePlace, name: str) -> sql.Composed:
    """What ends it."""
    return statement("contract_making_room", trigger_room=name, schema=place.vectors.schema, table=place.vectors.table)
