"""Queries of the application's that read the table of vectors and do not say of which model: with a second model they see a row for
each chunk and model. Asks the catalogue alone."""

import re
from collections.abc import Iterator

from tasks.base.words import listed
from tasks.stores.postgres.catalogue import MADE
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables

_VIEWS = """
    SELECT CASE v.relkind WHEN 'v' THEN 'view ' ELSE 'materialized view ' END || v.oid::regclass::text
    FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%(table)s) AND v.relkind IN ('v', 'm')
    GROUP BY v.oid, v.relkind HAVING NOT bool_or(coalesce(a.attname = %(model)s, false)) ORDER BY 1
"""
_FUNCTIONS = """
    SELECT 'function ' || p.oid::regprocedure::text
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace,
        LATERAL (SELECT lower(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc))) AS b (body)
    WHERE l.lanname NOT IN ('c', 'internal') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'vecferry')
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
      AND NOT coalesce(starts_with(obj_description(p.oid, 'pg_proc'), %(made)s), false)
      AND body ~ %(named)s AND strpos(body, lower(%(model)s)) = 0 ORDER BY 1
"""
"""By their text: what they build of pieces when they run nobody can read."""


def readers(connection: Connection, tables: ModelTables) -> list[str]:
    """Views and functions, by kind and name."""
    vectors = tables.embeddings
    given = {
        "table": vectors.identifier.as_string(),
        "model": vectors.model,
        "made": MADE,
        "named": rf"\m{re.escape(vectors.table.lower())}\M",
    }
    return [name for query in (_VIEWS, _FUNCTIONS) for (name,) in connection.execute(query, given)]


def warnings(connection: Connection, tables: ModelTables) -> Iterator[str]:
    """What has to say which model it means, before the second one's vectors come in."""
    if named := readers(connection, tables):
        vectors = tables.embeddings
        yield (
            f"{listed(named)}: {vectors} is read without {vectors.model}, and has a row for each chunk and model from the load on: "
            f"say there which model is meant, {vectors.model} = …, or search by the functions that `vecferry models setup` makes"
        )
