"""New vectors that an application writes by its function, where they lie beside the table: each is handed to a trigger of the table,
which writes it beside, and puts the row on the queue.

So a vector is written for a row that the writer may update, and for no other: no one needs a right to what lies beside.
"""

from collections.abc import Callable, Iterable

from psycopg import sql

from sql import statement
from tasks.runs import models
from tasks.runs.plan import Target
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace

WRITING = "vecferry.writing"
"""A setting that is on in transactions in which a run writes vectors of its own."""
HANDED = "vecferry.handed"
"""A setting: whose vector is under way, and the vector. It ends with the transaction, and is taken by the row's own trigger."""


def takes(place: LivePlace) -> bool:
    """Whether vectors are handed over."""
    return place.in_shadow and place.shared


def handed(place: LivePlace, extension: str) -> Callable[[str, str], tuple[str, str]]:
    """What is written before a vector and after it so that it is handed over where ``keeping``, a column, would be set, by what the
    table is called and this column."""

    def around(table: str, keeping: str) -> tuple[str, str]:
        kind = f"{extension}.{place.layout.type}({place.layout.dimensions})"
        before = f"CASE WHEN pg_catalog.set_config('{HANDED}', pg_catalog.concat({_whose(place, table)}, CAST(("
        return before, f") AS {kind})), true) IS NOT NULL THEN {table}.{quoted(keeping)} END"

    return around


def trigger_statement(connection: Connection, target: Target[LivePlace], name: str) -> sql.Composed:
    """The trigger that takes them."""
    place, live = target.place, target.place.live
    extension = pgvector_schema(connection) or "public"
    return statement(
        "expand_handing_over",
        trigger_vector=name,
        schema=place.schema,
        table=place.table,
        handed=sql.SQL(
            f"pg_catalog.current_setting('{HANDED}', true) <> '' AND "
            f"pg_catalog.starts_with(pg_catalog.current_setting('{HANDED}', true), pg_catalog.concat({_whose(place, 'OLD')}))"
        ),
        side=place.shadow,
        keys=", ".join(live.numbered()),
        values=", ".join(f"($1).{column.quoted}" for column in live.key),
        type=f"{extension}.{place.layout.type}({place.layout.dimensions})",
        queue=place.queue,
        key=live.noted_id("($1)"),
    )


def changed(connection: Connection, place: LivePlace) -> str:
    """SQL of a trigger's condition: text or key, and where others write vectors too, these; the old ones for as long as they stay."""
    live = place.live
    only = live.only.columns if live.only else []
    differs = _differ([*live.columns, *only, *(column.name for column in live.key)])
    vectors = [live.vectors, place.new_column]
    if not place.in_table:
        vectors = [name for name in vectors[:1] if stays(connection, place, name)]
    if not place.shared or not vectors:
        return differs
    theirs = f"pg_catalog.current_setting('{WRITING}', true) IS DISTINCT FROM 'on'"
    return f"{differs} OR {theirs} AND {_differ(vectors)}"


def _differ(names: Iterable[str]) -> str:
    """Whether bytes differ, not whether what they read as does: that depends on the writer's DateStyle, extra_float_digits and the
    like, and json has no other equality."""
    columns = [quoted(name) for name in dict.fromkeys(names)]
    old, new = (f"ROW({', '.join(f'{row}.{column}' for column in columns)})::record" for row in ("OLD", "NEW"))
    return f"{old} OPERATOR(pg_catalog.*<>) {new}"


def keeping(connection: Connection, place: LivePlace, column: str) -> tuple[str, ...]:
    """The columns of which an UPDATE sets one to what it is, where it would set ``column``: that, and once a contract drops it those
    that stay."""
    if stays(connection, place, column):
        return (column,)
    there = relations.settable(connection, place.live.identifier)
    named = [name for name in (*place.live.columns, *(c.name for c in place.live.key)) if name in there]
    return tuple(dict.fromkeys([*named, *(name for name in there if name != column)]))


def stays(connection: Connection, place: LivePlace, column: str) -> bool:
    """Whether the table has the column, and no contract is dropping it."""
    retired = models.is_retired(connection, place.schema, place.table, column)
    return relations.has_column(connection, place.live.identifier, column) and not retired


def _whose(place: LivePlace, table: str) -> str:
    """SQL of the parts of what says whose vector it is; keys as the writer's session has them, on both sides."""
    row = f"ROW({', '.join(f'{table}.{column.quoted}' for column in place.live.key)})"
    return f"{sql.Literal(place.shadow).as_string()}, {row}::text, ':'"
