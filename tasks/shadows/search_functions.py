"""The functions an application searches with: one for the new vectors, and at the switch one under the old name that
answers queries of either dimension, so that old and new instances of the application are both right.

    match_docs      what the application calls; at the switch it looks at the query's dimensions
    match_docs_v1   what match_docs was
    match_docs_v2   the nearest rows by the new vectors
"""

import re
from dataclasses import dataclass

from psycopg import sql

from sql import statement
from tasks.errors import UsageError
from tasks.plan import SCHEMA, ColumnTarget, short
from tasks.stores import pgvector
from tasks.stores.connection import Connection, pgvector_schema
from tasks.stores.live_table import quoted, text_columns

SIMILARITY = ("similarity", "score")
"""Result columns that are filled with 1 − distance."""


@dataclass(frozen=True)
class Function:
    """A search function as the catalogue has it."""

    oid: int
    arguments: str
    """With names, types and defaults, as CREATE FUNCTION takes them."""
    names: tuple[str, ...]
    result: str
    columns: tuple[tuple[str, str], ...]
    """Name and type of each result column."""
    definition: str
    volatility: str
    definer: bool
    config: tuple[str, ...]
    owner: str
    ours: bool
    """Whether vecferry made it."""

    @property
    def query(self) -> str:
        """The argument that is the query's vector."""
        return self.names[0]


def find(connection: Connection, schema: str, name: str) -> Function | None:
    """The function of that name. Raises UsageError when there are several."""
    rows = connection.execute(
        "SELECT p.oid::int8, pg_get_function_arguments(p.oid), coalesce(p.proargnames, '{}'), p.pronargs, "
        "pg_get_function_result(p.oid), coalesce(p.proargmodes::text[], '{}'), "
        "ARRAY(SELECT format_type(t, NULL) FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) t), "
        "pg_get_functiondef(p.oid), p.provolatile::text, p.prosecdef, coalesce(p.proconfig, '{}'), pg_get_userbyid(p.proowner), "
        "coalesce(obj_description(p.oid, 'pg_proc') LIKE 'Made by vecferry%%', false) "
        "FROM pg_proc p WHERE p.pronamespace = to_regnamespace(quote_ident(%s)) AND p.proname = %s AND p.prokind = 'f'",
        (schema, name),
    ).fetchall()
    if len(rows) > 1:
        raise UsageError(
            f"there are {len(rows)} functions called {schema}.{name}: drop the one that is not used, or name another "
            f"with `function`"
        )
    if not rows:
        return None
    oid, arguments, names, inputs, result, modes, types, definition, volatility, definer, config, owner, ours = rows[0]
    columns = [(n, t) for n, t, m in zip(names, types, modes, strict=False) if m in ("t", "o")]
    return Function(
        oid,
        arguments,
        tuple(names[:inputs]),
        result,
        tuple(columns),
        definition,
        {"i": "IMMUTABLE", "s": "STABLE", "v": "VOLATILE"}[volatility],
        definer,
        tuple(config),
        owner,
        ours,
    )


def view_name(target: ColumnTarget) -> str:
    """The view of a live table with the vectors that lie beside it."""
    return f"{short(target.shadow, 58)}_rows"


def make_view(connection: Connection, target: ColumnTarget) -> None:
    """The key, the text and what the search function returns, with the new vectors beside; no more, lest it stand in the
    way of changes to the table. Who may read the live table may read these rows of it."""
    live = target.live
    found = find(connection, target.schema, target.function) if target.function else None
    returned = [name for name, _ in found.columns if _has(connection, target, name)] if found else []
    columns = dict.fromkeys([*(c.name for c in live.key), *text_columns(live.text), *returned])
    connection.execute(
        sql.SQL(
            "CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS SELECT {columns}, s.embedding AS {column} "
            "FROM {side} AS s JOIN {table} AS b ON {same}"
        ).format(
            view=sql.Identifier(SCHEMA, view_name(target)),
            columns=sql.SQL(", ").join(sql.Identifier("b", name) for name in columns),
            column=sql.Identifier(target.new_column),
            side=sql.Identifier(SCHEMA, target.shadow),
            table=live.identifier,
            same=sql.SQL(live.same("s", "b")),
        )
    )
    _share(connection, target)


def problems(connection: Connection, target: ColumnTarget) -> list[str]:
    """What keeps the search function from being switched."""
    if target.function is None:
        return []
    v2 = f"{target.function}_v2"
    if (there := find(connection, target.schema, v2)) and not there.ours:
        return [f"{target.schema}.{v2} exists and is not vecferry's: drop it, or choose another name with `function`"]
    found = find(connection, target.schema, target.function)
    if found is None:
        return []
    unknown = [name for name, _ in found.columns if name not in SIMILARITY and not _has(connection, target, name)]
    if not found.columns:
        return [f"{target.schema}.{target.function} returns {found.result}, not a table with named columns"]
    if unknown:
        return [f"{target.schema}.{target.function} returns {', '.join(unknown)}, which {target.table} has not"]
    if len(found.names) != 3:
        return [f"{target.schema}.{target.function} takes ({found.arguments}), not query, threshold and count"]
    return []


def make_v2(connection: Connection, target: ColumnTarget) -> None:
    """``match_…_v2`` on the new vectors, returning what the function that is there returns, or key, text and similarity."""
    if target.function is None:
        return
    found = find(connection, target.schema, target.function)
    columns = found.columns if found else _default_columns(target)
    live, column = target.live, f"t.{quoted(target.new_column)}"
    # By its schema: an application's search_path need not lead to pgvector, nor that of the function that calls this.
    operator = f"OPERATOR({pgvector_schema(connection)}.{pgvector.OPERATOR[target.layout.metric]})"
    distance = f"{column} {operator} query_embedding"
    similarity = {"cosine": f"1 - ({distance})", "l2": f"1 / (1 + ({distance}))", "ip": f"-({distance})"}[
        target.layout.metric
    ]
    chosen = [
        f"({similarity})::{kind}" if name in SIMILARITY else f"({_column(target, name, found is None)})::{kind}"
        for name, kind in columns
    ]
    place = sql.Identifier(SCHEMA, view_name(target)) if target.beside else live.identifier
    name = sql.Identifier(target.schema, f"{target.function}_v2")
    connection.execute(
        sql.SQL(
            "CREATE OR REPLACE FUNCTION {name}(query_embedding vector, match_threshold double precision, match_count integer) "
            "RETURNS TABLE ({columns}) LANGUAGE sql STABLE AS {body}"
        ).format(
            name=name,
            columns=sql.SQL(", ".join(f"{quoted(name)} {kind}" for name, kind in columns)),
            body=sql.SQL(
                _dollars(
                    f"SELECT {', '.join(chosen)} FROM {place.as_string()} AS t WHERE {similarity} > match_threshold "
                    f"ORDER BY {distance} LIMIT match_count"
                )
            ),
        )
    )
    connection.execute(
        sql.SQL("COMMENT ON FUNCTION {} (vector, double precision, integer) IS {}").format(
            name, sql.Literal(f"Made by vecferry: the nearest rows by {target.name}")
        )
    )
    connection.execute(
        "NOTIFY pgrst, 'reload schema'"
    )  # PostgREST looks at the catalogue again; elsewhere nobody listens


def switch(connection: Connection, run_id: str, target: ColumnTarget) -> None:
    """Makes the application's function answer queries of either dimension, and says in vecferry.active_space which is
    meant now."""
    _note_space(connection, run_id, target, target.space, target.dimensions or 0, target.new_column)
    if target.function is None or (found := find(connection, target.schema, target.function)) is None:
        return
    make_v2(connection, target)
    old = sql.Identifier(target.schema, f"{target.function}_v1")
    _define_as(connection, found, old)
    copy = find(connection, target.schema, f"{target.function}_v1")
    assert copy
    connection.execute(f"ALTER FUNCTION {_signature(connection, copy.oid)} OWNER TO {quoted(found.owner)}")
    served = f"{target.live.layout.dimensions} and {target.dimensions}"
    arguments = ", ".join(quoted(name) for name in found.names)
    options = [found.volatility, *(["SECURITY DEFINER"] if found.definer else []), *(_setting(c) for c in found.config)]
    dims = f"{pgvector_schema(connection)}.vector_dims({quoted(found.query)})"
    body = (
        f"BEGIN\n"
        f"    IF {dims} = {target.live.layout.dimensions} THEN\n"
        f"        RETURN QUERY SELECT * FROM {old.as_string()}({arguments});\n"
        f"    ELSIF {dims} = {target.dimensions} THEN\n"
        f"        RETURN QUERY SELECT * FROM {sql.Identifier(target.schema, f'{target.function}_v2').as_string()}({arguments});\n"
        f"    ELSE\n"
        f"        RAISE EXCEPTION '{target.function} serves queries of {served} dimensions, not %', "
        f"{dims} USING ERRCODE = 'data_exception';\n"
        f"    END IF;\nEND"
    )
    connection.execute(
        f"CREATE OR REPLACE FUNCTION {sql.Identifier(target.schema, target.function).as_string()}({found.arguments}) "
        f"RETURNS {found.result} LANGUAGE plpgsql {' '.join(options)} AS {_dollars(body)}"
    )


def switch_back(connection: Connection, target: ColumnTarget) -> None:
    """The function as it was."""
    _note_space(
        connection, None, target, target.old_space or "", target.live.layout.dimensions or 0, target.live.vectors
    )
    if target.function is None or (was := find(connection, target.schema, f"{target.function}_v1")) is None:
        return
    _define_as(connection, was, sql.Identifier(target.schema, target.function))
    connection.execute(f"DROP FUNCTION {_signature(connection, was.oid)}")


def drop(connection: Connection, target: ColumnTarget) -> None:
    """Takes away what was made for the new vectors."""
    if target.function and (found := find(connection, target.schema, f"{target.function}_v2")):
        connection.execute(f"DROP FUNCTION {_signature(connection, found.oid)}")
    connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(SCHEMA, view_name(target))))


def contract(connection: Connection, target: ColumnTarget) -> None:
    """The application's function serves the new vectors alone."""
    if target.function is None or (old := find(connection, target.schema, f"{target.function}_v1")) is None:
        return
    found = find(connection, target.schema, target.function)
    assert found
    arguments = ", ".join(quoted(name) for name in found.names)
    v2 = sql.Identifier(target.schema, f"{target.function}_v2").as_string()
    body = f"BEGIN\n    RETURN QUERY SELECT * FROM {v2}({arguments});\nEND"
    options = [found.volatility, *(["SECURITY DEFINER"] if found.definer else []), *(_setting(c) for c in found.config)]
    connection.execute(
        f"CREATE OR REPLACE FUNCTION {sql.Identifier(target.schema, target.function).as_string()}({found.arguments}) "
        f"RETURNS {found.result} LANGUAGE plpgsql {' '.join(options)} AS {_dollars(body)}"
    )
    connection.execute(f"DROP FUNCTION {_signature(connection, old.oid)}")


def _note_space(
    connection: Connection, run_id: str | None, target: ColumnTarget, space: str, dimensions: int, column: str
) -> None:
    connection.execute(statement("expand_active_space"))
    connection.execute(
        "INSERT INTO vecferry.active_space (table_schema, table_name, column_name, dimensions, space, run_id) "
        "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (table_schema, table_name) DO UPDATE SET column_name = excluded.column_name, "
        "dimensions = excluded.dimensions, space = excluded.space, run_id = excluded.run_id, switched_at = now()",
        (target.schema, target.table, column, dimensions, space, run_id),
    )
    _share(connection, target)


def _share(connection: Connection, target: ColumnTarget) -> None:
    """Lets those who read the live table read what is beside it, row by row where its rows are guarded, and which space is
    active."""
    if target.beside:
        _guard(connection, target)
    rows = connection.execute(
        "SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END "
        "FROM pg_class c, aclexplode(c.relacl) AS g WHERE c.oid = to_regclass(%s) AND g.privilege_type = 'SELECT' "
        "AND g.grantee <> c.relowner",
        (target.live.identifier.as_string(),),
    ).fetchall()
    places = [sql.Identifier(SCHEMA, target.shadow), sql.Identifier(SCHEMA, view_name(target))] if target.beside else []
    places.append(sql.Identifier(SCHEMA, "active_space"))
    for (who,) in rows:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA vecferry TO {}").format(sql.SQL(who)))
        for place in places:
            if connection.execute("SELECT to_regclass(%s) IS NOT NULL", (place.as_string(),)).fetchone() == (True,):
                connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(place, sql.SQL(who)))


def _guard(connection: Connection, target: ColumnTarget) -> None:
    """Where policies decide who sees which row of the live table, they decide it for the vectors beside it too."""
    guarded = connection.execute(
        "SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(%s)", (target.live.identifier.as_string(),)
    ).fetchone()
    if guarded != (True,):
        return
    side = sql.Identifier(SCHEMA, target.shadow)
    connection.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(side))
    connection.execute(sql.SQL("DROP POLICY IF EXISTS as_the_live_table ON {}").format(side))
    connection.execute(
        sql.SQL(
            "CREATE POLICY as_the_live_table ON {} FOR SELECT USING (EXISTS (SELECT 1 FROM {} AS b WHERE {}))"
        ).format(side, target.live.identifier, sql.SQL(target.live.same("", "b")))
    )


def _define_as(connection: Connection, function: Function, name: sql.Identifier) -> None:
    """The same function under another name."""
    head = re.compile(r"(CREATE OR REPLACE FUNCTION )(.+?)(?=\()", re.DOTALL)
    connection.execute(head.sub(lambda m: m[1] + name.as_string(), function.definition, count=1))


def _signature(connection: Connection, oid: int) -> str:
    row = connection.execute("SELECT %s::oid::regprocedure::text", (oid,)).fetchone()
    assert row
    return str(row[0])


def _has(connection: Connection, target: ColumnTarget, column: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped AND attnum > 0",
        (target.live.identifier.as_string(), column),
    ).fetchone()
    return found is not None


def _default_columns(target: ColumnTarget) -> tuple[tuple[str, str], ...]:
    keys = [(column.name, column.type) for column in target.live.key]
    return (*keys, ("content", "text"), ("similarity", "double precision"))


def _column(target: ColumnTarget, name: str, default: bool) -> str:
    return target.live.said("t") if default and name == "content" else f"t.{quoted(name)}"


def _dollars(body: str) -> str:
    tag = "$vecferry$"
    assert tag not in body
    return f"{tag}\n{body}\n{tag}"


def _setting(setting: str) -> str:
    name, _, value = setting.partition("=")
    if name == "search_path":  # a list of quoted names already; the empty one has no such form in SQL
        return f"SET search_path = {value if value != EMPTY_PATH else sql.Literal('').as_string()}"
    return f"SET {name} = {sql.Literal(value).as_string()}"


EMPTY_PATH = '""'
"""What the catalogue holds for SET search_path = ''."""
