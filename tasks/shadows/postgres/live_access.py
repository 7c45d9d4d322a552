"""Who may read what lies beside a live table: those who may read the table, and of it the rows they see there."""

from psycopg import sql

from tasks.runs.names import short
from tasks.runs.plan import Target
from tasks.stores.postgres.catalogue import find
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import has_column, text_columns
from tasks.stores.postgres.places import SCHEMA, LivePlace


def view_name(target: Target[LivePlace]) -> str:
    """The view of a live table with the vectors that lie beside it."""
    return f"{short(target.place.shadow, 58)}_rows"


def make_view(connection: Connection, target: Target[LivePlace]) -> None:
    """The key, the text and what the search function returns, with the new vectors beside; no more, lest it stand in the
    way of changes to the table. Who may read the live table may read these rows of it."""
    live = target.place.live
    function = find(connection, target.place.schema, target.place.function) if target.place.function else None
    returned = (
        [name for name, _ in function.columns if has_column(connection, target.place.live, name)] if function else []
    )
    columns = dict.fromkeys([*(c.name for c in live.key), *text_columns(live.text), *returned])
    connection.execute(
        sql.SQL(
            "CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS SELECT {columns}, s.embedding AS {column} "
            "FROM {side} AS s JOIN {table} AS b ON {same}"
        ).format(
            view=sql.Identifier(SCHEMA, view_name(target)),
            columns=sql.SQL(", ").join(sql.Identifier("b", name) for name in columns),
            column=sql.Identifier(target.place.new_column),
            side=sql.Identifier(SCHEMA, target.place.shadow),
            table=live.identifier,
            same=sql.SQL(live.same("s", "b")),
        )
    )
    share(connection, target)


def share(connection: Connection, target: Target[LivePlace]) -> None:
    """Lets those who read the live table read what is beside it, row by row where its rows are guarded, and which space is
    active."""
    if target.place.beside:
        _guard(connection, target)
    rows = connection.execute(
        "SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END "
        "FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS g "
        "WHERE c.oid = to_regclass(%s) AND g.privilege_type = 'SELECT'",
        (target.place.live.identifier.as_string(),),
    ).fetchall()
    places = (
        [sql.Identifier(SCHEMA, target.place.shadow), sql.Identifier(SCHEMA, view_name(target))]
        if target.place.beside
        else []
    )
    places.append(sql.Identifier(SCHEMA, "active_space"))
    for (who,) in rows:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA vecferry TO {}").format(sql.SQL(who)))
        for place in places:
            if connection.execute("SELECT to_regclass(%s) IS NOT NULL", (place.as_string(),)).fetchone() == (True,):
                connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(place, sql.SQL(who)))


def _guard(connection: Connection, target: Target[LivePlace]) -> None:
    """Where policies decide who sees which row of the live table, they decide it for the vectors beside it too."""
    guarded = connection.execute(
        "SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(%s)", (target.place.live.identifier.as_string(),)
    ).fetchone()
    if guarded != (True,):
        return
    side = sql.Identifier(SCHEMA, target.place.shadow)
    connection.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(side))
    connection.execute(sql.SQL("DROP POLICY IF EXISTS as_the_live_table ON {}").format(side))
    connection.execute(
        sql.SQL(
            "CREATE POLICY as_the_live_table ON {} FOR SELECT USING (EXISTS (SELECT 1 FROM {} AS b WHERE {}))"
        ).format(side, target.place.live.identifier, sql.SQL(target.place.live.same("", "b")))
    )
