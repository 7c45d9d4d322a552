"""What of the application's reads the table of vectors, and means one row a chunk by it."""

import re

from psycopg import sql

from tasks.stores.postgres.catalogue import MADE
from tasks.stores.postgres.connection import Connection

_FUNCTIONS = """
SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname IN ('sql', 'plpgsql') AND p.prosqlbody IS NULL AND p.prosrc ~ ALL (%(words)s)
  AND p.pronamespace::regnamespace::text NOT IN ('vecferry', 'pg_catalog', 'information_schema')
  AND NOT coalesce(starts_with(obj_description(p.oid, 'pg_proc'), %(made)s), false) ORDER BY 1
"""
_PARSED = """
SELECT DISTINCT CASE WHEN v.oid IS NULL THEN 'function ' || p.oid::regprocedure::text
    ELSE CASE v.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END || v.oid::regclass::text END
FROM pg_depend d LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_class v ON v.oid = r.ev_class LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%s) AND coalesce(v.oid, p.oid) IS NOT NULL ORDER BY 1
"""


def named_in_functions(connection: Connection, *names: str) -> list[str]:
    """The functions whose text has all these names."""
    words = [rf"\m{re.escape(name)}\M" for name in names]
    return [name for (name,) in connection.execute(_FUNCTIONS, {"words": words, "made": MADE}).fetchall()]


def readers(connection: Connection, schema: str, table: str) -> list[str]:
    """The functions and views that read the table."""
    parsed = connection.execute(_PARSED, (sql.Identifier(schema, table).as_string(),)).fetchall()
    return sorted({*named_in_functions(connection, table), *(name for (name,) in parsed)})
