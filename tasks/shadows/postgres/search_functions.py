"""The functions an application searches with: one for the new vectors, and at the switch one under the old name that
answers queries of either dimension, so that old and new instances of the application are both right.

    match_docs      what the application calls; at the switch it looks at the query's dimensions
    match_docs_v1   what match_docs was
    match_docs_v2   the nearest rows by the new vectors
"""

from psycopg import sql

from tasks.runs.plan import Target
from tasks.shadows.postgres.live_access import note_space, view_name
from tasks.stores.postgres import pgvector
from tasks.stores.postgres.catalogue import define_as, dollars, find, give_body, signature
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.live_table import has_column, quoted
from tasks.stores.postgres.places import SCHEMA, LivePlace

SIMILARITY = ("similarity", "score")
"""Result columns that are filled with 1 − distance."""


def problems(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """What keeps the search function from being switched."""
    if target.place.function is None:
        return []
    v2 = f"{target.place.function}_v2"
    if (there := find(connection, target.place.schema, v2)) and not there.ours:
        return [
            f"{target.place.schema}.{v2} exists and is not vecferry's: drop it, or choose another name with `function`"
        ]
    found = find(connection, target.place.schema, target.place.function)
    if found is None:
        return []
    unknown = [
        name
        for name, _ in found.columns
        if name not in SIMILARITY and not has_column(connection, target.place.live, name)
    ]
    if not found.columns:
        return [f"{target.place.schema}.{target.place.function} returns {found.result}, not a table with named columns"]
    if unknown:
        return [
            f"{target.place.schema}.{target.place.function} returns {', '.join(unknown)}, which {target.place.table} has not"
        ]
    if len(found.names) != 3:
        return [
            f"{target.place.schema}.{target.place.function} takes ({found.arguments}), not query, threshold and count"
        ]
    return []


def make_v2(connection: Connection, target: Target[LivePlace]) -> None:
    """``match_…_v2`` on the new vectors, returning what the function that is there returns, or key, text and similarity."""
    if target.place.function is None:
        return
    found = find(connection, target.place.schema, target.place.function)
    columns = found.columns if found else _default_columns(target)
    live, column = target.place.live, f"t.{quoted(target.place.new_column)}"
    # By its schema: an application's search_path need not lead to pgvector, nor that of the function that calls this.
    operator = f"OPERATOR({pgvector_schema(connection)}.{pgvector.OPERATOR[target.place.layout.metric]})"
    distance = f"{column} {operator} query_embedding"
    similarity = {"cosine": f"1 - ({distance})", "l2": f"1 / (1 + ({distance}))", "ip": f"-({distance})"}[
        target.place.layout.metric
    ]
    chosen = [
        f"({similarity})::{kind}" if name in SIMILARITY else f"({_column(target, name, found is None)})::{kind}"
        for name, kind in columns
    ]
    place = sql.Identifier(SCHEMA, view_name(target)) if target.place.beside else live.identifier
    name = sql.Identifier(target.place.schema, f"{target.place.function}_v2")
    connection.execute(
        sql.SQL(
            "CREATE OR REPLACE FUNCTION {name}(query_embedding vector, match_threshold double precision, match_count integer) "
            "RETURNS TABLE ({columns}) LANGUAGE sql STABLE AS {body}"
        ).format(
            name=name,
            columns=sql.SQL(", ".join(f"{quoted(name)} {kind}" for name, kind in columns)),
            body=sql.SQL(
                dollars(
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


def switch(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Makes the application's function answer queries of either dimension, and says in vecferry.active_space which is
    meant now."""
    note_space(connection, run_id, target, target.space, target.dimensions or 0, target.place.new_column)
    if target.place.function is None or (found := find(connection, target.place.schema, target.place.function)) is None:
        return
    make_v2(connection, target)
    old = sql.Identifier(target.place.schema, f"{target.place.function}_v1")
    define_as(connection, found, old)
    copy = find(connection, target.place.schema, f"{target.place.function}_v1")
    assert copy
    connection.execute(f"ALTER FUNCTION {signature(connection, copy.oid)} OWNER TO {quoted(found.owner)}")
    served = f"{target.place.live.layout.dimensions} and {target.dimensions}"
    new = sql.Identifier(target.place.schema, f"{target.place.function}_v2")
    arguments = ", ".join(quoted(name) for name in found.names)
    dims = f"{pgvector_schema(connection)}.vector_dims({quoted(found.query)})"
    body = (
        f"BEGIN\n"
        f"    IF {dims} = {target.place.live.layout.dimensions} THEN\n"
        f"        RETURN QUERY SELECT * FROM {old.as_string()}({arguments});\n"
        f"    ELSIF {dims} = {target.dimensions} THEN\n"
        f"        RETURN QUERY SELECT * FROM {new.as_string()}({arguments});\n"
        f"    ELSE\n"
        f"        RAISE EXCEPTION '{target.place.function} serves queries of {served} dimensions, not %', "
        f"{dims} USING ERRCODE = 'data_exception';\n"
        f"    END IF;\nEND"
    )
    give_body(connection, found, body)


def switch_back(connection: Connection, target: Target[LivePlace]) -> None:
    """The function as it was."""
    note_space(
        connection,
        None,
        target,
        target.old_space or "",
        target.place.live.layout.dimensions or 0,
        target.place.live.vectors,
    )
    if (
        target.place.function is None
        or (was := find(connection, target.place.schema, f"{target.place.function}_v1")) is None
    ):
        return
    define_as(connection, was, sql.Identifier(target.place.schema, target.place.function))
    connection.execute(f"DROP FUNCTION {signature(connection, was.oid)}")


def drop(connection: Connection, target: Target[LivePlace]) -> None:
    """Takes away what was made for the new vectors."""
    v2 = target.place.function and find(connection, target.place.schema, f"{target.place.function}_v2")
    if v2 and v2.ours:
        connection.execute(f"DROP FUNCTION {signature(connection, v2.oid)}")
    connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(SCHEMA, view_name(target))))


def contract(connection: Connection, target: Target[LivePlace]) -> None:
    """The application's function serves the new vectors alone."""
    if (
        target.place.function is None
        or (old := find(connection, target.place.schema, f"{target.place.function}_v1")) is None
    ):
        return
    found = find(connection, target.place.schema, target.place.function)
    assert found
    arguments = ", ".join(quoted(name) for name in found.names)
    v2 = sql.Identifier(target.place.schema, f"{target.place.function}_v2").as_string()
    body = f"BEGIN\n    RETURN QUERY SELECT * FROM {v2}({arguments});\nEND"
    give_body(connection, found, body)
    connection.execute(f"DROP FUNCTION {signature(connection, old.oid)}")


def _default_columns(target: Target[LivePlace]) -> tuple[tuple[str, str], ...]:
    keys = [(column.name, column.type) for column in target.place.live.key]
    return (*keys, ("content", "text"), ("similarity", "double precision"))


def _column(target: Target[LivePlace], name: str, default: bool) -> str:
    return target.place.live.said("t") if default and name == "content" else f"t.{quoted(name)}"
