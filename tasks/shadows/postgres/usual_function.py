"""The function that searches the vectors of a table whose application has none of its own."""

from psycopg import sql

from sql import statement
from tasks.runs.plan import Target
from tasks.shadows.postgres.live.place import joined
from tasks.stores.postgres import pgvector
from tasks.stores.postgres.catalogue import MADE, Function, dollars, functions
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.function_names import split
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace


def make_usual(connection: Connection, target: Target[LivePlace], name: str) -> Function:
    """A function of its own for an application that has none."""
    connection.execute(usual(connection, target, name))
    return functions(connection, target.place.schema, name)[-1]


def usual(connection: Connection, target: Target[LivePlace], name: str) -> sql.Composed:
    """Key, text and similarity by query, threshold and count."""
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
    place = live.identifier.as_string() + " AS b"
    if target.place.in_shadow:
        place = f"({place} {joined(target)('b', 's')})"
        column_of = f"s.{quoted(target.place.new_column)}"
    else:
        column_of = f"b.{quoted(target.place.new_column)}"
    keys = [f"b.{c.quoted}" for c in live.key]
    nearest, similarity = (text.replace(column, column_of) for text in (nearest, similarity))
    body = (
        f"SELECT {', '.join(keys)}, {live.document('b')}, ({similarity})::double precision FROM {place} "
        f"WHERE {similarity} > match_threshold ORDER BY {nearest} LIMIT match_count"
    )
    columns = [*((c.name, c.type) for c in live.key), ("content", "text"), ("similarity", "double precision")]
    where, called = split(target.place.schema, name)
    return statement(
        "expand_search_function",
        schema=where,
        function=called,
        columns=sql.SQL(", ".join(f"{quoted(column)} {kind}" for column, kind in columns)),
        language=sql.SQL("sql"),
        body=sql.SQL(dollars(body)),
        comment=f"{MADE}: the nearest rows by {target.name}",
    )
