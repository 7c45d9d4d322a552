"""What of the application's keeps to a column of vectors when its name goes over to another one. What PostgreSQL holds parsed, such as
views, policies and constraints, stays with the old vectors; functions that are text get the new ones by the name."""

from collections.abc import Iterator

from tasks.runs.plan import Target
from tasks.shadows.postgres.column_readers import unswitched
from tasks.stores.postgres.catalogue import MADE, functions
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace

_PARSED = """
    SELECT DISTINCT CASE
        WHEN v.relkind IN ('v', 'm') THEN CASE v.relkind WHEN 'v' THEN 'view ' ELSE 'materialized view ' END || v.oid::regclass::text
        WHEN f.adnum IS NOT NULL THEN 'generated column ' || quote_ident((SELECT attname FROM pg_attribute
            WHERE attrelid = f.adrelid AND attnum = f.adnum))
        ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
    FROM pg_depend d
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_class v ON v.oid = r.ev_class
    LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
    LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid
    LEFT JOIN pg_am m ON m.oid = i.relam
    LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
    LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    LEFT JOIN pg_constraint n ON d.classid = 'pg_constraint'::regclass AND n.oid = d.objid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%(table)s) AND a.attname = %(column)s
      AND m.amname IS DISTINCT FROM 'hnsw' AND m.amname IS DISTINCT FROM 'ivfflat'
      AND (f.adnum IS NULL OR f.adnum <> a.attnum) AND n.contype IS DISTINCT FROM 'n'
      AND (t.oid IS NULL OR t.tgfoid IS DISTINCT FROM to_regproc('vecferry.note_change')::oid)
      AND (p.oid IS NULL OR NOT p.oid::int8 = ANY(%(functions)s)
           AND NOT coalesce(starts_with(obj_description(p.oid, 'pg_proc'), %(made)s), false))
    ORDER BY 1
"""
"""Indexes of the old vectors, their default, that they are not null, and what of the functions switches are none."""
_VIEWS = """
    WITH RECURSIVE view (oid) AS (
        SELECT r.ev_class FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
        WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%(table)s) AND a.attname = %(column)s
        UNION SELECT r.ev_class FROM view v JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid
        JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid WHERE v.oid <> to_regclass(%(table)s)
    )
    SELECT CASE relkind WHEN 'v' THEN 'view ' ELSE 'materialized view ' END || oid::regclass::text
    FROM view JOIN pg_class USING (oid) WHERE relkind IN ('v', 'm') ORDER BY 1
"""
"""Views on the column, and views on those."""
DROPPED = ("constraint ", "index ", "statistics object ")
"""What PostgreSQL drops with a column, and does not have stand in its way."""


def problems(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What would be searched, or written, otherwise than it says, where that is not allowed."""
    if not target.place.allow_dependents:
        for line in told(connection, target):
            yield f"{line}. Change that first, or set allow_dependents=true, which leaves it so"


def told(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """The same, a line a kind."""
    place, renaming = target.place, target.place.renaming
    if renaming is None or place.new_column == renaming.column:
        return
    column = f"{place.schema}.{place.table}.{renaming.column}"
    if staying := _staying(connection, target):
        yield f"{column} is used by {', '.join(staying)}: that would silently stay with the old vectors, which become {renaming.kept}"
    going, unread = _going(connection, target)
    if going:
        yield f"{column} is named by {', '.join(going)}: from the cutover on that gets the new vectors by this name"
    if unread:
        yield f"{column} may be named by {', '.join(unread)}, which could not be read"


def left(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What stays with the old vectors where no column is renamed, and is in the way of a contract."""
    place = target.place
    if place.renaming or place.live.beside:
        return
    column, staying = f"{target.collection.name}.{place.live.vectors}", _staying(connection, target)
    if going := [name for name in staying if name.startswith(DROPPED)]:
        yield f"{column} has {', '.join(going)}: `vecferry contract` drops that with the column"
    if kept := [name for name in staying if not name.startswith(DROPPED)]:
        yield (
            f"{column} is used by {', '.join(kept)}: that stays with the old vectors after the cutover, and until it is changed or "
            "dropped `vecferry contract` cannot drop the column"
        )


def _staying(connection: Connection, target: Target[LivePlace]) -> list[str]:
    names = [name for query in (_PARSED, _VIEWS) for (name,) in connection.execute(query, _names(connection, target))]
    return [*dict.fromkeys(names)]


def _going(connection: Connection, target: Target[LivePlace]) -> tuple[list[str], list[str]]:
    """Functions whose text names the column, and those that nobody can read."""
    texts = [r for r in unswitched(connection, target) if not r.parsed]
    going = [f"function {r.signature}" for r in texts if r.read]
    return going, [f"function {r.signature}" for r in texts if not r.read]


def _names(connection: Connection, target: Target[LivePlace]) -> dict[str, object]:
    place = target.place
    return {
        "table": place.live.identifier.as_string(),
        "column": place.live.vectors,
        "functions": [f.oid for name in place.functions for f in functions(connection, place.schema, name)],
        "made": MADE,
    }
