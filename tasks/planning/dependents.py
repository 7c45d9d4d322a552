"""What of the application's stops working when its table gets one more column, before anything is switched. Asks the catalogue alone,
and writes nothing."""

from collections.abc import Iterator

from tasks.runs.plan import Target
from tasks.shadows.postgres import bystanders, one_more_column
from tasks.shadows.postgres.live import statements
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.row_shapes import assigned


def problems(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What would surely stop working."""
    broken = [name for name, stops in _read(connection, target) if stops]
    if broken:
        yield (
            f"{target.collection.name}: one more column breaks {', '.join(broken)}: choose layout=side_table, which leaves the "
            "table as it is, or name the columns there, in place of * or of all columns"
        )


def warnings(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What may stop working elsewhere, or could not be read."""
    table = target.collection.name
    unread = [name for name, stops in _read(connection, target) if stops is None]
    if unread:
        yield f"{table}: what one more column does to {', '.join(unread)} could not be read; layout=side_table adds none"
    yield from _fired(connection, target)
    everything, published = _publications(connection, target)
    if published and target.place.in_table:
        yield (
            f"{table} is published by {', '.join(published)} without a list of columns, and so is the new column: a subscriber "
            "stops that has no such column. Add it there first, or choose layout=side_table"
        )
    if everything:
        yield (
            f"{', '.join(everything)} publishes all tables, and so those of the schema vecferry: a subscriber stops that has no "
            "such tables"
        )


def _fired(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """Triggers that fire when the column is filled, and what they set."""
    live, table = target.place.live, target.collection.name
    if not target.place.in_table:
        return
    firing = [name for (name,) in connection.execute(statements.triggers(live, target.place.new_column))]
    if not firing:
        return
    rows = connection.execute(
        "SELECT tgname, pg_get_functiondef(tgfoid) FROM pg_trigger JOIN pg_proc p ON p.oid = tgfoid "
        "JOIN pg_language l ON l.oid = prolang WHERE tgrelid = to_regclass(%s) AND tgname = ANY(%s) AND lanname = 'plpgsql' "
        "AND tgtype & 2 <> 0 ORDER BY 1",
        (live.identifier.as_string(), firing),
    ).fetchall()
    sets = {name: columns for name, definition in rows if (columns := assigned(definition))}
    told = [f"{name} (which sets {', '.join(sets[name])})" if name in sets else name for name in firing]
    yield f"{table}: filling a column fires {', '.join(told)} for every row; layout=side_table avoids that"
    kept = set(bystanders.kept(connection, target)) | {target.place.new_column}
    if setting := [f"{name} sets {', '.join(own)}" for name, columns in sets.items() if (own := kept & set(columns))]:
        yield f"{table}: {'; '.join(setting)}: a run stops at the first rows where that happens when the new column is filled"


def _read(connection: Connection, target: Target[LivePlace]) -> Iterator[tuple[str, bool | None]]:
    """Functions by name, and whether one more column breaks them; None where nobody can say."""
    live = target.place.live
    if target.place.in_table and not relations.has_column(connection, live.identifier, target.place.new_column):
        yield from one_more_column.read(connection, live)


def _publications(connection: Connection, target: Target[LivePlace]) -> tuple[list[str], list[str]]:
    """Those of all tables, and those that publish whichever columns this table has."""
    rows = connection.execute(
        "SELECT p.pubname, p.puballtables FROM pg_publication p JOIN pg_publication_tables t USING (pubname) "
        "WHERE (t.schemaname, t.tablename) = (%s, %s) AND NOT EXISTS (SELECT 1 FROM pg_publication_rel r "
        "WHERE r.prpubid = p.oid AND r.prrelid = to_regclass(%s) AND to_jsonb(r) ->> 'prattrs' IS NOT NULL) ORDER BY 1",
        (target.place.schema, target.place.table, target.place.live.identifier.as_string()),
    ).fetchall()
    return [name for name, everything in rows if everything], [name for name, _ in rows]
