"""The functions that search the models of live tables: which one searches a model for those who call another one."""

from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from tasks.runs import models
from tasks.runs.models import COLUMNS, Model
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import of_table, split


@dataclass(frozen=True)
class Searched:
    """A model and the function that searches it for those who call another one."""

    model: Model
    body: str
    """As function_names has it, for the live table."""
    own: bool
    """Whether it is what the application's own function was."""
    origin: dict[str, Any] | None
    """The application's own function, from which this one was derived; None where an earlier version made it."""


def of_function(connection: Connection, schema: str, function: str) -> list[Searched]:
    """The models that a function of this name searches, or will, in the order in which they came; ``schema`` is that of a name
    without one."""
    if not models.exists(connection):
        return []
    where, name = split(schema, function)
    # An older ledger, which is only read, has no origins.
    rows = connection.execute(
        f"SELECT body, own, to_jsonb(f) -> 'origin', {COLUMNS} FROM vecferry.search_function f JOIN vecferry.model USING (model) "
        "WHERE (table_schema = %s AND function = %s OR function = %s) AND state <> 'retired' ORDER BY model",
        (where, name, of_table("", where, name)),
        prepare=True,
    ).fetchall()
    return [Searched(Model(*row[3:]), *row[:3]) for row in rows]


def note(connection: Connection, searched: Searched, function: str) -> None:
    """Notes what searches a model for those who call ``function``."""
    connection.execute(
        "INSERT INTO vecferry.search_function (model, function, body, own, origin) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (model, function) DO UPDATE SET body = excluded.body, own = excluded.own, origin = excluded.origin",
        (searched.model.model, function, searched.body, searched.own, searched.origin and Jsonb(searched.origin)),
    )


def note_own(connection: Connection, model: Model, function: str) -> None:
    """Notes that the application's own function searches the model, and no other that it was noted for."""
    connection.execute(
        "DELETE FROM vecferry.search_function s USING vecferry.model m WHERE m.model = s.model AND s.own "
        "AND s.function = %s AND s.body = %s AND (m.table_schema, m.table_name) = (%s, %s)",
        (function, function, model.table_schema, model.table_name),
    )
    note(connection, Searched(model, function, True, None), function)


def of_model(connection: Connection, model: Model) -> list[tuple[str, str]]:
    """The functions by which a model is searched: what people call, and what searches for them."""
    return connection.execute(
        "SELECT function, body FROM vecferry.search_function WHERE model = %s", (model.model,)
    ).fetchall()
