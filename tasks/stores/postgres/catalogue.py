"""Functions as PostgreSQL's catalogue has them, and how they are written again: under another name, or with other bodies."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.stores.postgres.connection import Connection

MADE = "Made by vecferry"
"""How the comments on functions of ours begin, and the bodies of those of the user's that we have given another."""
EMPTY_PATH = '""'
"""What the catalogue holds for SET search_path = ''."""


@dataclass(frozen=True)
class Function:
    """A search function as the catalogue has it."""

    oid: int
    schema: str
    name: str
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
    made: bool
    """Whether vecferry made it."""

    @property
    def query(self) -> str:
        """The argument that is the query's vector."""
        return self.names[0]


def find(
    connection: Connection, schema: str, name: str, like: Function | None = None, switched: bool = False
) -> Function | None:
    """The function of that name, with the arguments of ``like``. Raises UsageError when there are several; of a name that was
    ``switched``, the one that was is told from others by its body or its arguments."""
    rows = connection.execute(
        "SELECT p.oid::int8, pg_get_function_arguments(p.oid), coalesce(p.proargnames, '{}'), p.pronargs, "
        "pg_get_function_result(p.oid), coalesce(p.proargmodes::text[], '{}'), "
        "ARRAY(SELECT format_type(t, NULL) FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) t), "
        "pg_get_functiondef(p.oid), p.provolatile::text, p.prosecdef, coalesce(p.proconfig, '{}'), pg_get_userbyid(p.proowner), "
        "coalesce(starts_with(obj_description(p.oid, 'pg_proc'), %s), false) "
        "FROM pg_proc p WHERE p.pronamespace = to_regnamespace(quote_ident(%s)) AND p.proname = %s AND p.prokind = 'f' "
        "AND (%s::oid IS NULL OR p.proargtypes = (SELECT proargtypes FROM pg_proc WHERE oid = %s))",
        (MADE, schema, name, like and like.oid, like and like.oid),
    ).fetchall()
    if switched and len(rows) > 1:
        rows = [r for r in rows if MADE in r[7] or r[12]] or [r for r in rows if _is_usual(r[6][: r[3]])] or rows
    if len(rows) > 1:
        raise UsageError(
            f"{counted(len(rows), 'function', 'are')} called {schema}.{name}: drop those that are not used, "
            "or name another with `function`"
        )
    if not rows:
        return None
    oid, arguments, names, inputs, result, modes, types, definition, volatility, definer, config, owner, made = rows[0]
    columns = [(n, t) for n, t, m in zip(names, types, modes, strict=False) if m in ("t", "o")]
    return Function(
        oid,
        schema,
        name,
        arguments,
        tuple(names[:inputs]),
        result,
        tuple(columns),
        definition,
        {"i": "IMMUTABLE", "s": "STABLE", "v": "VOLATILE"}[volatility],
        definer,
        tuple(config),
        owner,
        made,
    )


def _is_usual(types: Sequence[str]) -> bool:
    """Whether these are query, threshold and count, as most write them."""
    return [kind.rpartition(".")[2] for kind in types] == ["vector", "double precision", "integer"]


def define_as(connection: Connection, function: Function, name: str) -> Function:
    """The same function under another name, in its schema."""
    definition = re.sub(r"CREATE OR REPLACE FUNCTION .+?(?=\()", "", function.definition, count=1, flags=re.DOTALL)
    connection.execute(
        statement("cutover_function_copy", schema=function.schema, function=name, definition=sql.SQL(definition))
    )
    copy = find(connection, function.schema, name, like=function)
    assert copy
    return copy


def drop(connection: Connection, function: Function) -> None:
    """Takes the function away."""
    connection.execute(statement("contract_function", function=signature(connection, function)))


def give_to(connection: Connection, function: Function, owner: str) -> None:
    """Makes that role its owner."""
    connection.execute(statement("cutover_function_owner", function=signature(connection, function), role=owner))


def describe_as(connection: Connection, function: Function, what: str) -> None:
    """Gives it a comment that says that it is ours, and what it is."""
    comment = f"{MADE}: {what}"
    connection.execute(statement("cutover_function_comment", function=signature(connection, function), comment=comment))


def open_alike(connection: Connection, function: Function, copy: Function) -> None:
    """Lets those execute ``copy`` who may execute ``function``."""
    for role in _executors(connection, function) - {copy.owner}:
        connection.execute(statement("grant_function", function=signature(connection, copy), role=_grantee(role)))


def close(connection: Connection, function: Function) -> None:
    """Lets nobody execute it but its owner."""
    for role in _executors(connection, function) - {function.owner}:
        name = signature(connection, function)
        connection.execute(statement("grant_function_no_more", function=name, role=_grantee(role)))


def _grantee(role: str | None) -> sql.Composable:
    return sql.Identifier(role) if role else sql.SQL("PUBLIC")


def _executors(connection: Connection, function: Function) -> set[str | None]:
    """The roles that may execute it; None stands for everybody."""
    rows = connection.execute(
        "SELECT CASE WHEN g.grantee <> 0 THEN pg_get_userbyid(g.grantee) END FROM pg_proc p, "
        "aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g WHERE p.oid = %s AND g.privilege_type = 'EXECUTE'",
        (function.oid,),
    ).fetchall()
    return {role for (role,) in rows} | {function.owner}


def give_body(connection: Connection, function: Function, body: str) -> None:
    """The same function, with its arguments, result, owner, grants and settings, and this body of PL/pgSQL."""
    options = [
        function.volatility,
        *(["SECURITY DEFINER"] if function.definer else []),
        *map(_setting, function.config),
    ]
    connection.execute(
        statement(
            "cutover_function_body",
            schema=function.schema,
            function=function.name,
            arguments=sql.SQL(function.arguments),
            result=sql.SQL(function.result),
            options=sql.SQL(" ".join(options)),
            body=sql.SQL(dollars(body)),
        )
    )


def signature(connection: Connection, function: Function) -> sql.SQL:
    """What names the function in ALTER and DROP."""
    row = connection.execute("SELECT %s::oid::regprocedure::text", (function.oid,)).fetchone()
    assert row
    return sql.SQL(row[0])


def dollars(body: str) -> str:
    """The body as a literal."""
    tag = "$vecferry$"
    assert tag not in body
    return f"{tag}\n{body}\n{tag}"


def _setting(setting: str) -> str:
    name, _, value = setting.partition("=")
    if name == "search_path":  # a list of quoted names already; the empty one has no such form in SQL
        return f"SET search_path = {value if value != EMPTY_PATH else sql.Literal('').as_string()}"
    return f"SET {name} = {sql.Literal(value).as_string()}"
