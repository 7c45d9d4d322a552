"""The function that searches the vectors of one model, and what keeps the application's own from being switched."""

from psycopg import sql

from sql import statement
from tasks.runs import search_bodies
from tasks.runs.plan import Target
from tasks.shadows.postgres.live_access import view_name
from tasks.stores.postgres import pgvector, relations
from tasks.stores.postgres.catalogue import MADE, Function, dollars, find
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import SCHEMA, LivePlace

SIMILARITY = ("similarity", "score")
"""Result columns that are filled with 1 − distance."""

Columns = tuple[tuple[str, str], ...]
"""Name and type of each result column."""


def problems(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """What keeps the search function from being switched."""
    if target.place.function is None:
        return []
    name = f"{target.place.schema}.{target.place.function}"
    others = {s.model.table for s in search_bodies.of_function(connection, target.place.schema, target.place.function)}
    if others - {f"{target.place.schema}.{target.place.table}"}:
        return [
            f"{name} searches {', '.join(sorted(others))}: name the search function of {target.place.table} with `function`"
        ]
    function = find(connection, target.place.schema, target.place.function)
    if function is None:
        return []
    unknown = [
        column
        for column, _ in function.columns
        if column not in SIMILARITY and not relations.has_column(connection, target.place.live.identifier, column)
    ]
    if not function.columns:
        return [f"{name} returns {function.result}, not a table with named columns"]
    if unknown:
        return [f"{name} returns {', '.join(unknown)}, which {target.place.table} does not have"]
    if len(function.names) != 3:
        return [f"{name} takes ({function.arguments}), not a query, a threshold and a count"]
    return []


def make(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Makes a function of that name that finds the nearest rows by the target's new vectors."""
    connection.execute(body_statement(connection, target, name))


def body_statement(connection: Connection, target: Target[LivePlace], name: str) -> sql.Composed:
    """What makes it, in the schema of the live table."""
    function = find(connection, target.place.schema, target.place.function) if target.place.function else None
    live, layout, column = target.place.live, target.place.layout, f"t.{quoted(target.place.new_column)}"
    # By its schema: an application's search_path need not lead to pgvector, nor that of the function that calls this.
    extension = pgvector_schema(connection)
    operator = f"OPERATOR({extension}.{pgvector.OPERATOR[layout.metric]})"
    distance = f"{column} {operator} query_embedding"
    similarity = {"cosine": f"1 - ({distance})", "l2": f"1 / (1 + ({distance}))", "ip": f"-({distance})"}[layout.metric]
    nearest = distance
    if layout.index_type and layout.index_type != layout.type:
        kind = f"{extension}.{layout.index_type}({layout.dimensions})"
        nearest = f"({column}::{kind}) {operator} query_embedding::{kind}"  # what the index is on
    chosen = [
        f"({similarity})::{kind}" if name in SIMILARITY else f"({_column(target, name, function is None)})::{kind}"
        for name, kind in columns(target, function)
    ]
    place = sql.Identifier(SCHEMA, view_name(target)) if target.place.beside else live.identifier
    body = (
        f"SELECT {', '.join(chosen)} FROM {place.as_string()} AS t WHERE {similarity} > match_threshold "
        f"ORDER BY {nearest} LIMIT match_count"
    )
    return created(target.place.schema, name, columns(target, function), target.name, body)


def created(schema: str, name: str, returned: "Columns", what: str, body: str, language: str = "sql") -> sql.Composed:
    """What makes a function that takes query, threshold and count; its comment says by ``what`` it finds the nearest rows."""
    return statement(
        "expand_search_function",
        schema=schema,
        function=name,
        columns=sql.SQL(", ".join(f"{quoted(column)} {kind}" for column, kind in returned)),
        language=sql.SQL(language),
        body=sql.SQL(dollars(body)),
        comment=f"{MADE}: the nearest rows by {what}",
    )


def columns(target: Target[LivePlace], function: Function | None) -> Columns:
    """What the function that is there returns; where there is none, key, text and similarity."""
    keys = [(column.name, column.type) for column in target.place.live.key]
    return function.columns if function else (*keys, ("content", "text"), ("similarity", "double precision"))


def _column(target: Target[LivePlace], name: str, default: bool) -> str:
    return target.place.live.document("t") if default and name == "content" else f"t.{quoted(name)}"
