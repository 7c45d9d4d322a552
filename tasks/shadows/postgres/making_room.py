"""Vectors that an application adds to a table in which a run keeps those of the same rows and models: its own INSERTs win, and never
fail because the run was there first."""

from psycopg import sql

from sql import statement
from tasks.stores.postgres.places import LivePlace

_BODY = """
BEGIN
    -- A run that is writing at this moment is waited for, and passes by the row until the transaction has ended.
    PERFORM FROM {live} AS b WHERE b.{key} = NEW.{chunk} FOR KEY SHARE;
    -- Hardly ever there is one, and a look costs less than a DELETE that finds nothing.
    IF EXISTS (SELECT FROM {vectors} AS v WHERE v.{chunk} = NEW.{chunk} AND v.{model} = NEW.{model}) THEN
        DELETE FROM {vectors} AS v USING vecferry.{side} AS s
        WHERE v.{chunk} = NEW.{chunk} AND v.{model} = NEW.{model} AND s.k1 = v.{chunk} AND v.xmin IN (s.written, s.old_written);
    END IF;
    RETURN NEW;
END
"""
"""Before somebody adds a vector of a row: where the run has brought in one of the same row and model, that goes, and no key stands in
the way."""


def trigger_statement(place: LivePlace, name: str) -> sql.Composed:
    """The trigger that has them win, over vectors of the new model and of the old one."""
    vectors = place.vectors
    assert vectors.of
    (model, number), (chunk,) = vectors.of, vectors.keys
    numbers = [number, *([place.live.old.of[1]] if place.live.old.of else [])]
    body = sql.SQL(_BODY).format(
        live=place.live.identifier,
        key=sql.Identifier(place.live.key[0].name),
        vectors=vectors.identifier,
        chunk=sql.Identifier(chunk),
        model=sql.Identifier(model),
        side=sql.Identifier(place.shadow),
    )
    return statement(
        "expand_making_room",
        trigger_room=name,
        schema=vectors.schema,
        table=vectors.table,
        model=model,
        numbers=sql.SQL(", ".join(numbers)),
        body=body.as_string(),
    )


def drop_statement(place: LivePlace, name: str) -> sql.Composed:
    """What ends it."""
    return statement("contract_making_room", trigger_room=name, schema=place.vectors.schema, table=place.vectors.table)
