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
    if target.place.in_shadow:
        yield from _guard(connection, target)
    for role in _readers(connection, target):
        yield statement("grant_reading", role=sql.SQL(role), relations=_shared(target))


def shut_out(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """Who may read the live table by now, and not what lies beside it; with what lets him."""
    if not target.place.in_shadow:
        return []
    table, names = f"{target.place.schema}.{target.place.table}", _shared(target).as_string(connection)
    let_in = set(relations.readers(connection, sql.Identifier(SCHEMA, view_name(target))))
    return [
        f"{role} may read {table}, and not the new vectors that lie beside it: GRANT USAGE ON SCHEMA {SCHEMA} TO {role}; "
        f"GRANT SELECT ON {names} TO {role}"
        for role in _readers(connection, target)
        if role not in let_in
    ]


def _readers(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """The roles that may read the live table, as GRANT takes them."""
    live = target.place.live
    columns = relations.column_grants(connection, live.identifier, live.vectors)
    by_column = [role for role, privilege, _ in columns if privilege == "SELECT"]
    return list(dict.fromkeys([*relations.readers(connection, live.identifier), *by_column]))


def _shared(target: Target[LivePlace]) -> sql.Composed:
    names = [target.place.shadow, view_name(target)] if target.place.in_shadow else []
    return sql.SQL(", ").join(sql.Identifier(SCHEMA, name) for name in [*names, "active_space"])


def _guard(connection: Connection, target: Target[LivePlace]) -> Iterator[sql.Composed]:
    """Where policies decide who sees which row of the live table, they decide it for the vectors beside it too."""
    live = target.place.live
    if relations.is_guarded(connection, live.identifier):
        same = sql.SQL(live.same("", "b"))
        yield statement("grant_rows_alike", side=target.place.shadow, schema=live.schema, table=live.table, same=same)
