"""Tables and views as PostgreSQL's catalogue has them: what they are, how large, and who may do what with them.

These questions, like those about functions in catalogue.py and the searches in table.py, stand in code: they change nothing. What
changes something is a file of sql/.
"""

from typing import Any

from psycopg import sql

from tasks.stores.postgres.connection import Connection

ROLE = "CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END"
"""SQL of a role as GRANT takes it."""


def exists(connection: Connection, relation: sql.Identifier) -> bool:
    """Whether there is one of that name."""
    return bool(_value(connection, "SELECT to_regclass(%s) IS NOT NULL", relation))


def may_read(connection: Connection, relation: sql.Identifier) -> bool:
    """Whether there is one of that name, and this role may read it."""
    return bool(_value(connection, "SELECT has_table_privilege(to_regclass(%s), 'SELECT')", relation))


def identity(connection: Connection, relation: sql.Identifier) -> str:
    """Its number, which survives a rename and does not survive a re-creation."""
    return str(_value(connection, "SELECT %s::regclass::oid", relation))


def size(connection: Connection, relation: sql.Identifier) -> int:
    """Bytes, with its indexes."""
    return int(_value(connection, "SELECT pg_total_relation_size(%s::regclass)", relation))


def count(connection: Connection, relation: sql.Composable) -> int:
    """Its rows, counted."""
    return int(_value(connection, sql.SQL("SELECT count(*) FROM {}").format(relation)))


def estimated_count(connection: Connection, relation: sql.Identifier) -> int:
    """Its rows by the table's statistics; 0 where there are none, or no such table."""
    query = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)"
    return max(0, int(_value(connection, query, relation) or 0))


def has_column(connection: Connection, relation: sql.Identifier, name: str) -> bool:
    """Whether it has a column of that name."""
    query = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped AND attnum > 0"
    return _value(connection, query, relation, name) is not None


def settable(connection: Connection, relation: sql.Identifier) -> list[str]:
    """The columns that an UPDATE may set to a value, in their order."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
        "AND attgenerated = '' AND attidentity <> 'a' ORDER BY attnum",
        (relation.as_string(),),
    ).fetchall()
    return [name for (name,) in rows]


def may_be_null(connection: Connection, relation: sql.Identifier, column: str) -> bool:
    """Whether a row may lack a value of the column."""
    query = "SELECT NOT attnotnull FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s"
    return bool(_value(connection, query, relation, column))


def is_generated(connection: Connection, relation: sql.Identifier, column: str) -> bool:
    """Whether PostgreSQL makes the column's values, and takes no others."""
    query = "SELECT attgenerated <> '' FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s"
    return bool(_value(connection, query, relation, column))


def is_guarded(connection: Connection, relation: sql.Identifier) -> bool:
    """Whether policies decide who sees which of its rows."""
    return bool(_value(connection, "SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(%s)", relation))


def column_grants(connection: Connection, relation: sql.Identifier, column: str) -> list[tuple[str, str, bool]]:
    """Role, privilege and whether it may be passed on, of what is granted on the column by itself."""
    return connection.execute(
        f"SELECT {ROLE}, g.privilege_type, g.is_grantable FROM pg_attribute a, aclexplode(a.attacl) AS g "
        "WHERE a.attrelid = to_regclass(%s) AND a.attname = %s",
        (relation.as_string(), column),
    ).fetchall()


def readers(connection: Connection, relation: sql.Identifier) -> list[str]:
    """The roles that may read it, as GRANT takes them, but for the one that asks; its owner is one."""
    rows = connection.execute(
        f"SELECT DISTINCT {ROLE} FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS g "
        "WHERE c.oid = to_regclass(%s) AND g.privilege_type = 'SELECT' "
        "AND g.grantee <> (SELECT oid FROM pg_roles WHERE rolname = current_user)",
        (relation.as_string(),),
    ).fetchall()
    return [role for (role,) in rows]


def grants(connection: Connection, relation: sql.Identifier) -> list[tuple[str, str, bool]]:
    """What others than its owner may do with it: role, as GRANT takes it, privilege, and whether it may be passed on."""
    return connection.execute(
        f"SELECT {ROLE}, g.privilege_type, g.is_grantable FROM pg_class c, aclexplode(c.relacl) AS g "
        "WHERE c.oid = to_regclass(%s) AND g.grantee <> c.relowner",
        (relation.as_string(),),
    ).fetchall()


def default(connection: Connection, relation: sql.Identifier, column: str) -> str | None:
    """SQL of the column's default, without a cast; None where it has none."""
    query = (
        "SELECT regexp_replace(pg_get_expr(d.adbin, d.adrelid), '::[a-z ]+$', '') FROM pg_attrdef d JOIN pg_attribute a "
        "ON (a.attrelid, a.attnum) = (d.adrelid, d.adnum) WHERE d.adrelid = to_regclass(%s) AND a.attname = %s"
    )
    return _value(connection, query, relation, column)


def owner(connection: Connection, relation: sql.Identifier) -> str | None:
    """Who owns it, where that is not this role."""
    query = (
        "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass(%s) "
        "AND relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)"
    )
    return _value(connection, query, relation)


def _value(
    connection: Connection, query: str | sql.Composed, relation: sql.Identifier | None = None, *more: str
) -> Any:
    names = (relation.as_string(), *more) if relation else None
    row = connection.execute(query, names).fetchone()
    return row[0] if row else None
