"""Who may read what lies beside a live table: those who may read the table, and of it the rows they see there."""

from collections.abc import Iterator

from psycopg import sql

from sql import statement
from tasks.runs.names import short
from tasks.runs.plan import Target
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import SCHEMA, LivePlace


def view_name(target: Target[LivePlace]) -> str:
    """The view of a live table with the vectors that lie beside it."""
    return f"{short(target.place.shadow, 58)}_rows"


def view_statement(connection: Connection, target: Target[LivePlace]) -> sql.Composed:
    """What makes the view: key and text, with the new vectors beside, and what tells what a row shows. Who may read the live
    table may read these rows of it."""
    live = target.place.live
    label = [] if live.label is None else [live.label]
    columns = dict.fromkeys([*(c.name for c in live.key), *live.columns, *label])
    return statement(
        "expand_view",
        view=view_name(target),
        columns=sql.SQL(", ").join(sql.Identifier("b", name) for name in columns),
        column=target.place.new_column,
        side=target.place.shadow,
        schema=live.schema,
        table=live.table,
        same=sql.SQL(live.same("s", "b")),
    )


def share(connection: Connection, target: Target[LivePlace]) -> None:
    """Lets those who read the live table read what is beside it, row by row where its rows are guarded, and which space is
    active."""
    for one in share_statements(connection, target):
        connection.execute(one)


def share_statements(connection: Connection, target: Target[LivePlace]) -> Iterator[sql.Composed]:
    """What ``share`` sends."""
    if target.place.beside:
        yield from _guard(connection, target)
    names = [target.place.shadow, view_name(target)] if target.place.beside else []
    shared = sql.SQL(", ").join(sql.Identifier(SCHEMA, name) for name in [*names, "active_space"])
    live = target.place.live
    columns = relations.column_grants(connection, live.identifier, live.vectors)
    by_column = [role for role, privilege, _ in columns if privilege == "SELECT"]
    for role in dict.fromkeys([*relations.readers(connection, live.identifier), *by_column]):
        yield statement("grant_reading", role=sql.SQL(role), relations=shared)


def _guard(connection: Connection, target: Target[LivePlace]) -> Iterator[sql.Composed]:
    """Where policies decide who sees which row of the live table, they decide it for the vectors beside it too."""
    live = target.place.live
    if relations.is_guarded(connection, live.identifier):
        same = sql.SQL(live.same("", "b"))
        yield statement("grant_rows_alike", side=target.place.shadow, schema=live.schema, table=live.table, same=same)
