"""What a live table gets for its new vectors: a column or a table beside it, a table of what is known of each row, a
queue of the rows that changed, and the triggers that fill it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from sql import statement
from tasks.runs import models
from tasks.runs.models import Model
from tasks.runs.names import index_names, short
from tasks.runs.plan import Target
from tasks.shadows.postgres import handing_over, making_room
from tasks.shadows.postgres.columns import current
from tasks.shadows.postgres.live.access import share, share_statements, view_name, view_statement
from tasks.stores.postgres import hnsw, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.pgvector import tuple_target
from tasks.stores.postgres.places import SCHEMA, LivePlace
from tasks.stores.postgres.table import Table

TRIGGERS = ("write", "update", "truncate")
VECTOR = "vector"
"""The trigger that takes vectors that are handed over, where any are."""
ROOM = "room"
"""The one that has others' vectors win, where they add rows to the same table."""
BESIDE = 100
"""Bytes of a side table's row beside its vector: the header, the key, the hash of the text."""


def make(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Makes what is missing of it, once the registry of models says whose it is."""
    _claim(connection, run_id, target)
    name = f"{target.place.schema}.{target.place.table}"
    made = not relations.has_column(connection, target.place.live.identifier, target.place.new_column)
    source = {"table": name, "column": target.place.new_column, "column_is_ours": made}
    make_known(connection, run_id, target, source)
    if target.place.in_table and not relations.has_column(
        connection, target.place.live.identifier, target.place.new_column
    ):
        for one in _column_statements(connection, target):
            connection.execute(one)
    note_changes(connection, target)
    if target.place.in_shadow:
        connection.execute(view_statement(connection, target))
        share(connection, target)


def make_known(connection: Connection, run_id: str, target: Target[LivePlace], source: Mapping[str, Any]) -> None:
    """Makes the table of what is known of each row, where it is missing; ``source`` is what the ledger keeps of it."""
    connection.execute(
        "INSERT INTO vecferry.relation (table_schema, table_name, run_id, target, role, source, space) "
        "VALUES (%s, %s, %s, %s, 'shadow', %s, %s) ON CONFLICT DO NOTHING",
        (SCHEMA, target.place.shadow, run_id, target.number, Jsonb(dict(source)), target.space),
    )
    connection.execute(_side_statement(target))
    name = index_names(run_id, target.place.table, target.name)["key"]
    if name not in hnsw.existing(connection, Table(SCHEMA, target.place.shadow, target.place.layout)):
        connection.execute(_key_statement(run_id, target))


def is_noted(connection: Connection, target: Target[LivePlace]) -> bool:
    """Whether its triggers note every change: somebody may have switched them off, as ``pg_restore --disable-triggers`` does, or
    have put another table into its place."""
    kinds = (*TRIGGERS, VECTOR) if handing_over.takes(target.place) else TRIGGERS
    names = [trigger_name(target.place, kind) for kind in kinds]
    row = connection.execute(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname = ANY(%s) AND tgenabled = 'A'",
        (target.place.live.identifier.as_string(), names),
    ).fetchone()
    return row == (len(names),)


def bring_forward(connection: Connection, target: Target[LivePlace]) -> bool:
    """Makes queue and triggers into what they should be, where an earlier version made them or somebody has changed them; whether
    changes may have gone unnoted."""
    noted = is_noted(connection, target)
    if not noted or not relations.has_column(connection, queue(target.place), "noted_in"):
        locked(connection, lambda: note_changes(connection, target))
    return not noted


def note_changes(connection: Connection, target: Target[LivePlace]) -> None:
    """Makes the queue and the triggers that fill it, as they are to be by now."""
    connection.execute(statement("expand_note_change"))
    for one in _noting_statements(connection, target):
        connection.execute(one)


def statements(connection: Connection, run_id: str, target: Target[LivePlace]) -> list[sql.Composed]:
    """What ``make`` sends that names this target, for the plan."""
    column = [*_column_statements(connection, target)] if target.place.in_table else []
    view = [view_statement(connection, target), *share_statements(connection, target)] if target.place.in_shadow else []
    noting = _noting_statements(connection, target)
    return [_side_statement(target), _key_statement(run_id, target), *column, *noting, *view]


def _side_statement(target: Target[LivePlace]) -> sql.Composed:
    live = target.place.live
    keys = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(sql.Identifier(c.name), sql.SQL(n))
        for c, n in zip(live.key, live.numbered(), strict=True)
    )
    if not target.place.in_shadow:
        return statement("expand_known_rows", side=target.place.shadow, keys=keys, **_where(target))
    return statement(
        "expand_side_table",
        side=target.place.shadow,
        keys=keys,
        toast_tuple_target=tuple_target(target.place.layout, BESIDE),
        **_where(target),
        **_dims(target),
    )


def _key_statement(run_id: str, target: Target[LivePlace]) -> sql.Composed:
    name = index_names(run_id, target.place.table, target.name)["key"]
    keys = sql.SQL(", ".join(target.place.live.numbered()))
    return statement("expand_primary_key", schema=SCHEMA, table=target.place.shadow, constraint=name, key=keys)


def _column_statement(target: Target[LivePlace]) -> sql.Composed:
    return statement("expand_column", column=target.place.new_column, **_where(target), **_dims(target))


def _column_statements(connection: Connection, target: Target[LivePlace]) -> Iterator[sql.Composed]:
    """The column, for those who may read or write that of the old vectors by itself."""
    yield _column_statement(target)
    live, column = target.place.live, target.place.new_column
    for role, privilege, grantable in relations.column_grants(connection, live.identifier, live.vectors):
        option = sql.SQL("WITH GRANT OPTION" if grantable else "")
        granted = {"privilege": sql.SQL(privilege), "role": sql.SQL(role), "option": option}
        yield statement("grant_column_alike", column=column, **granted, **_where(target))


def _noting_statements(connection: Connection, target: Target[LivePlace]) -> Iterator[sql.Composed]:
    place = target.place
    changed = sql.SQL(handing_over.changed(connection, place))
    yield statement("expand_queue", key=place.live.noted_id("($1)"), changed=changed, **_triggers(target))
    if handing_over.takes(place):
        yield handing_over.trigger_statement(connection, target, trigger_name(place, VECTOR))
    if place.vectors.of:
        yield making_room.trigger_statement(place, trigger_name(place, ROOM))


def _claim(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    models.hold(connection)
    live = target.place.live
    came_with = Model(
        model=0,
        table_schema=target.place.schema,
        table_name=target.place.table,
        content=live.text,
        place_schema=target.place.schema,
        place_name=target.place.table,
        column_name=live.vectors,
        dimensions=live.layout.dimensions,
        metric=live.layout.metric,
        space=target.old_space or "",
        state="built",
        run_id=None,
        target=None,
        planned_from=None,
        took_over_from=None,
    )
    old = models.register(connection, came_with)
    schema, name = (SCHEMA, view_name(target)) if target.place.in_shadow else (target.place.schema, target.place.table)
    models.claim(
        connection,
        replace(
            came_with,
            place_schema=schema,
            place_name=name,
            column_name=target.place.new_column,
            dimensions=target.dimensions,
            metric=target.place.layout.metric,
            space=target.space,
            state="building",
            run_id=run_id,
            target=target.number,
            planned_from=old.model,
        ),
    )


def retire(connection: Connection, target: Target[LivePlace]) -> None:
    """Drops the vectors that a contracted run was searched by, with all that kept them current."""
    target = current(connection, target)
    drop_known(connection, target)
    if target.place.in_table:
        connection.execute(statement("contract_column", column=target.place.new_column, **_where(target)))


def drop(connection: Connection, target: Target[LivePlace]) -> None:
    """Takes all of it away. A column that was there before the run stays as it is."""
    drops_column = column_is_ours(connection, target)
    drop_known(connection, target)
    if drops_column:
        connection.execute(statement("contract_column", column=target.place.new_column, **_where(target)))


def drop_known(connection: Connection, target: Target[LivePlace]) -> None:
    """Drops what is known of each row, and ends the noting of changes."""
    stop_noting(connection, target)
    drop_side_table(connection, target)
    connection.execute(
        "DELETE FROM vecferry.relation WHERE table_schema = %s AND table_name = %s", (SCHEMA, target.place.shadow)
    )


def column_is_ours(connection: Connection, target: Target[LivePlace]) -> bool | None:
    """Whether the run made the column, and not the user; None where it has none, or has made nothing."""
    row = connection.execute(
        "SELECT coalesce((source -> 'column_is_ours')::boolean, false) FROM vecferry.relation WHERE table_schema = %s AND table_name = %s",
        (SCHEMA, target.place.shadow),
    ).fetchone()
    return None if not target.place.in_table or row is None else row[0]


def stop_noting(connection: Connection, target: Target[LivePlace]) -> None:
    """Ends the noting of changes, and forgets those that were noted."""
    connection.execute(statement("contract_queue", **_triggers(target)))
    if target.place.vectors.of:
        connection.execute(making_room.drop_statement(target.place, trigger_name(target.place, ROOM)))


def drop_side_table(connection: Connection, target: Target[LivePlace]) -> None:
    """Drops what is known of each row, and with it the vectors that lie beside the table."""
    connection.execute(statement("contract_side_table", side=target.place.shadow, view=view_name(target)))


def _triggers(target: Target[LivePlace]) -> dict[str, Any]:
    names = {f"trigger_{kind}": trigger_name(target.place, kind) for kind in (*TRIGGERS, VECTOR)}
    return {"queue": target.place.queue, **names, **_where(target)}


def _where(target: Target[LivePlace]) -> dict[str, Any]:
    return {"schema": target.place.schema, "table": target.place.table}


def _dims(target: Target[LivePlace]) -> dict[str, Any]:
    return {"type": target.place.layout.type, "dims": target.dimensions or 0}


def side_table(place: LivePlace) -> sql.Identifier:
    """The table of what is known of each row: its key, the hash of the text that was embedded, and, in the layout
    side_table, the vector."""
    return sql.Identifier(SCHEMA, place.shadow)


def joined(target: Target[LivePlace]) -> Callable[[str, str], str]:
    """SQL that joins the vectors that lie beside a table, by what the table is called and what they are: each of one column,
    called as the plan says, beside a key that hides no column of the table."""
    place, live = target.place, target.place.live
    keys = [f"s.{n} AS beside_{n}" for n in live.numbered()]
    vectors = (
        f"SELECT {', '.join(keys)}, s.embedding AS {quoted(place.new_column)} FROM {side_table(place).as_string()} AS s"
    )

    def join(table: str, beside: str) -> str:
        pairs = zip(live.numbered(), live.key, strict=True)
        same = " AND ".join(f"{beside}.beside_{n} = {table}.{column.quoted}" for n, column in pairs)
        return f"JOIN ({vectors}) AS {beside} ON {same}"

    return join


def queue(place: LivePlace) -> sql.Identifier:
    """The queue of rows of this target that changed."""
    return sql.Identifier(SCHEMA, place.queue)


def trigger_name(place: LivePlace, kind: str) -> str:
    """A trigger of this target's on the live table."""
    return f"vecferry_{short(place.shadow, 44)}_{kind}"


def numbered_id(place: LivePlace, alias: str) -> str:
    """SQL of a row's name, as LiveTable.id gives it, in a table of ours."""
    columns = zip(place.live.numbered(alias), place.live.key, strict=True)
    parts = [column.text(n) for n, column in columns]
    return parts[0] if len(parts) == 1 else f"jsonb_build_array({', '.join(parts)})::text"
