"""What the role needs that migrates a live table, and has not: each as the statement that an administrator runs."""

from collections.abc import Iterator
from itertools import product

from psycopg import sql

from tasks.runs.plan import Target
from tasks.shadows.postgres import dispatcher
from tasks.stores.postgres.catalogue import MADE
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import bare, split
from tasks.stores.postgres.places import SCHEMA, LivePlace


def missing(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """Statements that grant what is missing."""
    yield from dict.fromkeys(_places(connection, target))
    yield from dict.fromkeys([*_table(connection, target), *_function(connection, target)])


def _places(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    row = connection.execute(
        "SELECT quote_ident(current_user), to_regnamespace(%s) IS NULL OR has_schema_privilege(to_regnamespace(%s), 'CREATE') "
        "AND has_schema_privilege(to_regnamespace(%s), 'USAGE')",
        (SCHEMA, SCHEMA, SCHEMA),
    ).fetchone()
    assert row
    role, may_use = row
    if not may_use:
        yield f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {role}"
    functions = [split(target.place.schema, function)[0] for function in target.place.functions]
    for schema, right in product(dict.fromkeys([target.place.schema, *functions]), ("USAGE", "CREATE")):
        may = connection.execute(
            "SELECT has_schema_privilege(oid, %s) FROM pg_namespace WHERE nspname = %s", (right, schema)
        )
        if may.fetchone() == (False,):
            yield f"GRANT {right} ON SCHEMA {sql.Identifier(schema).as_string()} TO {role}"


def _table(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """A column, its index and triggers that fire under replication too are the owner's to make, in either layout."""
    row = connection.execute(
        "SELECT quote_ident(current_user), quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'USAGE'), "
        "row_security_active(c.oid) FROM pg_class c WHERE c.oid = to_regclass(%s)",
        (target.place.live.identifier.as_string(),),
    ).fetchone()
    assert row
    role, owner, owns, guarded = row
    if not owns:
        yield f"GRANT {owner} TO {role}"
    elif guarded:
        yield f"ALTER ROLE {role} BYPASSRLS"  # the table's policies are forced upon its owner


def _function(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """The switch gives the application's functions other bodies, as only their owners may; so does an earlier run's _v2 get one."""
    for function in target.place.functions:
        schema, name = split(target.place.schema, function)
        made = [bare(other) for other in dispatcher.names("", target, function)]
        rows = connection.execute(
            "SELECT DISTINCT quote_ident(pg_get_userbyid(p.proowner)), quote_ident(current_user) FROM pg_proc p "
            "WHERE p.pronamespace = to_regnamespace(quote_ident(%s)) AND NOT pg_has_role(p.proowner, 'USAGE') "
            "AND (p.proname = %s OR p.proname = ANY(%s) AND starts_with(obj_description(p.oid, 'pg_proc'), %s))",
            (schema, name, made, MADE),
        ).fetchall()
        for owner, role in rows:
            yield f"GRANT {owner} TO {role}"
        # What is made of a function is given to its owner, whom only a superuser gives what he could not make himself.
        owners = connection.execute(
            "SELECT quote_ident(pg_get_userbyid(p.proowner)) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE (n.nspname, p.proname) = (%s, %s) AND NOT has_schema_privilege(p.proowner, n.oid, 'CREATE') "
            "AND p.proowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) "
            "AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)",
            (schema, name),
        ).fetchall()
        for (owner,) in owners:
            yield f"GRANT CREATE ON SCHEMA {sql.Identifier(schema).as_string()} TO {owner}"
