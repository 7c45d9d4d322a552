"""What a live table must be like to be followed and written to: each thing that it is not, with the way on. Asks the catalogue
alone, and writes nothing."""

from collections.abc import Iterator

from psycopg import sql

from tasks.runs.plan import Target
from tasks.shadows.postgres import one_more_column
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace

SIDE_TABLE = "choose layout=side_table, which leaves the table as it is"


def problems(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What keeps the table from being followed, and in the layout ``column`` from being written to."""
    yield from _key(connection, target)
    yield from _children(connection, target)
    yield from _names(target)
    if target.place.in_table:
        yield from _column(connection, target)
        for line in one_more_column.unwritable(connection, target.place.live, target.place.new_column):
            yield f"{line}: {SIDE_TABLE}"


def warnings(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What a person should know of the text."""
    live, table = target.place.live, target.collection.name
    rows = connection.execute(
        "SELECT attname, CASE atttypid WHEN 'money'::regtype THEN 'lc_monetary' ELSE 'timezone' END FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attname = ANY(%s) AND atttypid IN ('timestamptz'::regtype, 'money'::regtype)",
        (live.identifier.as_string(), live.columns),
    ).fetchall()
    for name, setting in rows:
        yield (
            f"{table}.{name} is part of the text, and reads by the {setting} of vecferry's sessions: keep that the same for all of "
            f"them, ALTER ROLE … SET {setting} = …, or every row is embedded again"
        )


def unique_index(connection: Connection, target: Target[LivePlace]) -> bool:
    """Whether an index tells rows apart by the key, all of them, and by nothing else."""
    live = target.place.live
    row = connection.execute(
        "SELECT 1 FROM pg_index i WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL "
        "AND i.indexprs IS NULL AND ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place) "
        "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts ORDER BY 1) "
        "= %s::text[]",
        (live.identifier.as_string(), sorted(column.name for column in live.key)),
    ).fetchone()
    return row is not None


def _key(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    live, table = target.place.live, target.collection.name
    names = [column.name for column in live.key]
    if not unique_index(connection, target):
        yield (
            f"{table}: no unique index on ({', '.join(names)}), so rows "
            "cannot be told apart: create one, or name other columns with `id`"
        )
    nullable = connection.execute(
        "SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass(%s) "
        "AND a.attname = ANY(%s) AND NOT (a.attnotnull OR t.typnotnull)",
        (live.identifier.as_string(), names),
    ).fetchall()
    for (name,) in nullable:
        column = sql.Identifier(name).as_string()
        yield (
            f"{table}.{name} may be NULL, and a row without a key cannot be followed: ALTER TABLE "
            f"{live.identifier.as_string()} ALTER COLUMN {column} SET NOT NULL, or name other columns with `id`"
        )
    # What a value of a type consists of: the type below a domain, of an array's elements, of a range's bounds.
    unsteady = connection.execute(
        "WITH RECURSIVE part (name, oid, depth) AS ("
        "SELECT attname, atttypid, 0 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = ANY(%s) "
        "UNION SELECT p.name, below.oid, p.depth + 1 FROM part p JOIN pg_type t ON t.oid = p.oid, LATERAL ("
        "SELECT t.typbasetype WHERE t.typtype = 'd' UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' AND t.typelem <> 0 "
        "UNION ALL SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid) AS below (oid)) "
        "SELECT DISTINCT name, format_type(oid, NULL) FROM part WHERE oid = 'money'::regtype "
        "OR (SELECT typname FROM pg_type WHERE oid = part.oid) LIKE 'reg%%' OR (depth > 0 AND oid = 'timestamptz'::regtype)",
        (live.identifier.as_string(), names),
    ).fetchall()
    for name, kind in unsteady:
        yield (
            f"{table}.{name} consists of {kind}, which reads differently from session to session, so a row cannot be "
            "followed by it: name other columns with `id`"
        )


def _children(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    live, table = target.place.live, target.collection.name
    children = [
        name
        for (name,) in connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(%s) ORDER BY 1",
            (live.identifier.as_string(),),
        )
    ]
    if children:
        yield (
            f"{table} has the rows of {', '.join(children)} too, by inheritance, and its triggers do not hear of changes there: "
            "migrate tables without children, each as a target of its own"
        )


def _names(target: Target[LivePlace]) -> Iterator[str]:
    live = target.place.live
    names = [live.schema, live.table, target.place.new_column, *(c.name for c in live.key), *live.columns]
    if bad := [name for name in names if "%" in name]:
        yield f"{bad[0]!r} contains a %, and such names are not supported"


def _column(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """A column that is there under the name of the new one: it is the user's, and stays as it is."""
    place = target.place
    row = connection.execute(
        "SELECT format_type(a.atttypid, a.atttypmod), t.typname, a.atttypmod, a.attgenerated <> '', a.attnotnull, a.attnum < 0 "
        "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
        "WHERE a.attrelid = to_regclass(%s) AND a.attname = %s AND NOT a.attisdropped",
        (place.live.identifier.as_string(), place.new_column),
    ).fetchone()
    if row is None:
        return
    kind, name, dimensions, generated, filled, system = row
    wanted = f"{place.layout.type}({target.dimensions})"
    other = "choose another new_column"
    if system:
        yield f"{target.place.column} is a column of PostgreSQL's own: {other}"
    elif generated:
        yield f"{target.place.column} is there, and is generated by PostgreSQL: {other}"
    elif (name, dimensions) != (place.layout.type, target.dimensions):
        yield (
            f"{target.place.column} is there, and is {kind}, not {wanted}: {other}, or drop the column if nothing uses it, and "
            "the run makes it"
        )
    elif filled:
        yield f"{target.place.column} is there, and is NOT NULL, but a row without a text has no vector: {other}"
