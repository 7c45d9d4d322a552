"""What is noted of tables that serve several models when they are prepared, and when a model's vectors move or go."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tasks.base.errors import UsageError
from tasks.embedders.interface import Space
from tasks.runs import models
from tasks.runs.registry import Place, RegisteredModel
from tasks.stores.interface import Metric
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables, every


def add_tables(
    connection: Connection, tables: ModelTables, counts_of_chunk: str, before: Mapping[str, Any]
) -> ModelTables:
    """Registers a set of tables, and gives it its number; one of their names, whose tables were dropped by hand, is forgotten."""
    for one in every(connection):
        if _names(one) & _names(tables):
            forget_tables(connection, one)
    row = connection.execute(
        "INSERT INTO vecferry.model_tables (chunks_schema, chunks_table, embeddings_schema, embeddings_table, roles, before, "
        "counts_of_chunk) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING set_id",
        (
            tables.chunks.schema,
            tables.chunks.table,
            tables.embeddings.schema,
            tables.embeddings.table,
            Jsonb(tables.as_json()),
            Jsonb(dict(before)),
            counts_of_chunk,
        ),
    ).fetchone()
    assert row
    return replace(tables, set_id=row[0])


def stays_ended(connection: Connection, model: RegisteredModel) -> None:
    """Until the caller's transaction ends nobody brings it back. Raises UsageError where somebody has, or has dropped it."""
    row = connection.execute(
        "SELECT state, ended_at IS NOT NULL FROM vecferry.model WHERE model = %s FOR SHARE", (model.number,)
    ).fetchone()
    if row and row[0] == "retired":
        raise UsageError(f"the vectors of {model.name} were dropped meanwhile by another command")
    if row != ("built", True):
        raise UsageError(f"{model.name} was brought back meanwhile, and no further vector of it is dropped")


def stays_idle(connection: Connection, model: RegisteredModel) -> None:
    """Until the caller's transaction ends nobody makes it the default. Raises UsageError where it is that."""
    row = connection.execute("SELECT state FROM vecferry.model WHERE model = %s FOR SHARE", (model.number,)).fetchone()
    if row == ("active",):
        raise UsageError(
            f"{model.name} is the default of new searches, and its vectors would go: make another one the default first, "
            "`vecferry models activate NAME`"
        )


def bring_back(connection: Connection, model: RegisteredModel) -> None:
    """Has it searched again."""
    connection.execute("UPDATE vecferry.model SET ended_at = NULL WHERE model = %s", (model.number,))


def ended_at(connection: Connection, model: RegisteredModel) -> datetime:
    """Since when it is no longer searched. It must have ended."""
    row = connection.execute("SELECT ended_at FROM vecferry.model WHERE model = %s", (model.number,)).fetchone()
    assert row
    assert row[0]
    return row[0]


def forget(connection: Connection, model: RegisteredModel) -> None:
    """Notes that its vectors are there no more; its name is free again."""
    models.hold(connection)
    connection.execute(
        "UPDATE vecferry.model SET state = 'retired', switched_at = now() WHERE model = %s", (model.number,)
    )


def rename_column(connection: Connection, tables: ModelTables, model: RegisteredModel, renamed: str) -> None:
    """Notes what the column of a model, and of those that share it, is called from now on."""
    models.hold(connection)
    connection.execute(
        "UPDATE vecferry.model SET column_name = %s WHERE set_id = %s AND state <> 'retired' "
        "AND (place_schema, place_name, column_name) = (%s, %s, %s)",
        (renamed, tables.set_id, model.place_schema, model.place_table, model.column),
    )


def expected(
    number: int, name: str, space: Space | int, place: Place, metric: Metric = "cosine", external_id: str | None = None
) -> RegisteredModel:
    """A model as ``register`` would add it, for a plan."""
    known = None if isinstance(space, int) else space
    return RegisteredModel(
        number=number,
        id=external_id or str(number),
        name=name,
        provider=name.partition("/")[0],
        dimensions=space if isinstance(space, int) else space.dimensions,
        metric=metric,
        normalized=known.normalized if known else None,
        space=known.fingerprint if known else "",
        similarity_threshold=None,
        active=False,
        ended=False,
        building=False,
        place_schema=place.schema,
        place_table=place.table,
        column=place.column,
        vector_type=place.vector_type,
    )


def with_default(models: Sequence[RegisteredModel], id: str | None = None) -> list[RegisteredModel]:
    """The models of a plan, with the one that would be active: that of this id, else the first where none is."""
    if id is None and (not models or any(model.active for model in models)):
        return list(models)
    return [replace(model, active=model.id == (id or models[0].id)) for model in models]


def before(connection: Connection, tables: ModelTables) -> dict[str, Any]:
    """What was noted of the tables as they were before."""
    row = connection.execute(
        "SELECT before::text FROM vecferry.model_tables WHERE set_id = %s", (tables.set_id,)
    ).fetchone()
    assert row
    return json.loads(row[0])


def note_before(connection: Connection, tables: ModelTables, **facts: Any) -> None:
    """Notes more of it."""
    connection.execute(
        "UPDATE vecferry.model_tables SET before = before || %s WHERE set_id = %s", (Jsonb(facts), tables.set_id)
    )


def forget_tables(connection: Connection, tables: ModelTables) -> None:
    """Takes the set out of the registry, with its models."""
    connection.execute("DELETE FROM vecferry.coverage WHERE set_id = %s", (tables.set_id,))
    connection.execute("DELETE FROM vecferry.model_tables WHERE set_id = %s", (tables.set_id,))


def _names(tables: ModelTables) -> set[tuple[str, str]]:
    return {("chunks", str(tables.chunks)), ("embeddings", str(tables.embeddings))}


def next_number(connection: Connection, table: str, column: str) -> int:
    """The number that the registry will give."""
    row = connection.execute("SELECT to_regclass('vecferry.model_tables') IS NOT NULL").fetchone()
    if row != (True,):
        return 1
    name = connection.execute(
        "SELECT coalesce(s.last_value, 0) + 1 FROM pg_sequences s "
        "WHERE (quote_ident(s.schemaname) || '.' || quote_ident(s.sequencename)) = pg_get_serial_sequence(%s, %s)",
        (f"vecferry.{table}", column),
    ).fetchone()
    return int(name[0]) if name else 1
