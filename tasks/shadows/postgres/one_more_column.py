"""What stands against one more column of a live table: functions of the application's that it breaks, and tables that take none."""

from collections.abc import Iterator

from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.row_shapes import Routine, Scope, breaks
from tasks.stores.postgres.syntax import NotParsed

_ROUTINES = """
    SELECT p.oid::regprocedure::text, p.proname, l.lanname, pg_get_functiondef(p.oid), p.prosrc, p.prorettype = c.reltype,
           p.prorettype <> c.reltype AND (p.prorettype = 'record'::regtype OR t.typtype = 'c'), triggers.names, tables.names
    FROM pg_class c, pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_type t ON t.oid = p.prorettype,
        LATERAL (SELECT coalesce(array_agg(tgname::text ORDER BY tgname), '{}') FROM pg_trigger
                 WHERE tgrelid = c.oid AND tgfoid = p.oid AND NOT tgisinternal) AS triggers (names),
        LATERAL (SELECT coalesce(array_agg(name::text), '{}') FROM pg_trigger, unnest(ARRAY[tgoldtable, tgnewtable]) AS name
                 WHERE tgrelid = c.oid AND tgfoid = p.oid AND name IS NOT NULL) AS tables (names)
    WHERE c.oid = to_regclass(%s) AND l.lanname IN ('sql', 'plpgsql') AND p.prokind IN ('f', 'p')
      AND p.pronamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema', 'vecferry'))
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
      AND (p.prorettype = c.reltype OR triggers.names <> '{}' OR p.prosrc = '' OR strpos(lower(p.prosrc), lower(c.relname)) > 0)
    ORDER BY 1
"""
"""Functions that have to do with the table; one whose body was parsed when it was made has no source."""


def read(connection: Connection, live: LiveTable) -> Iterator[tuple[str, bool | None]]:
    """Functions by name, with the triggers of the table that call them, and whether one more column breaks them; None where
    nobody can say."""
    rows = connection.execute(_ROUTINES, (live.identifier.as_string(),)).fetchall()
    returning = {name for _, name, _, _, _, returns_rows, *_ in rows if returns_rows}
    for signature, _, language, definition, body, returns_rows, returns_columns, triggers, tables in rows:
        scope = Scope(live.schema, live.table, bool(triggers), frozenset(returning | set(tables)))
        routine = Routine(signature, language, definition, body, returns_rows, returns_columns, bool(triggers))
        named = f"{signature} of the trigger {', '.join(triggers)}" if triggers else signature
        try:
            yield named, breaks(routine, scope)
        except NotParsed:
            if triggers or returns_rows:
                yield named, None


def unwritable(connection: Connection, live: LiveTable, column: str) -> Iterator[str]:
    """Why the table takes no column of that name, or has it filled with something else."""
    table = f"{live.schema}.{live.table}"
    row = connection.execute(
        "SELECT relispartition, reloftype <> 0, "
        "ARRAY(SELECT rulename::text FROM pg_rewrite WHERE ev_class = c.oid AND ev_type = '2' AND ev_enabled <> 'D' ORDER BY 1), "
        "EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = c.oid AND attname = %s) FROM pg_class c WHERE c.oid = to_regclass(%s)",
        (column, live.identifier.as_string()),
    ).fetchone()
    assert row
    partition, typed, rules, there = row
    if partition and not there:
        yield f"{table} is a partition, and takes a column only from the table it is a part of"
    if typed and not there:
        yield f"{table} is a table of a type, and takes no column of its own"
    if rules:
        yield f"{table}: every UPDATE, and so the one that fills a column, is rewritten by {', '.join(rules)}"
