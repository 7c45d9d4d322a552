"""The SQL that changes something where collections become tables, for a plan: from the statements that the run sends."""

from collections.abc import Iterator
from typing import Any

from sql import statement
from tasks.planning.shown_sql import group, lines
from tasks.runs.names import index_names
from tasks.runs.plan import Plan, Target
from tasks.shadows.postgres.new_table import switch_statements
from tasks.stores.postgres import hnsw
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pages import merge_statements
from tasks.stores.postgres.places import TablePlace
from tasks.stores.postgres.table import index_statements, key_statement, remove_statement, table_statements
from tasks.stores.postgres.wire import copy_statement, records_into


def statements(connection: Connection, plan: Plan) -> Iterator[str]:
    """A line for each statement, and one before those that are sent at the same time."""
    if any(t.place.loads for t in plan.targets):
        yield from group("all tables", "first", lines(statement("expand_extension")))
    for target in plan.targets:
        yield from _loaded(connection, plan, target) if target.place.loads else _synced(target)


def _synced(target: Target[TablePlace]) -> Iterator[str]:
    table = target.place.final
    yield from group(
        target.name,
        "for rows that differ, once vecferry.undo keeps what they were",
        lines(*merge_statements(table), remove_statement(table)),
    )


def _loaded(connection: Connection, plan: Plan, target: Target[TablePlace]) -> Iterator[str]:
    name, table = target.name, target.place.hidden
    where: dict[str, Any] = {"schema": table.schema, "table": table.name}
    names = index_names(plan.run_id, target.place.table, name)
    removed, gin = remove_statement(table), statement("expand_gin", **where, index=names["gin"])
    indexes = index_statements(table, names["hnsw"], *hnsw.parameters(target.collection))
    yield from group(name, "before rows are read", lines(*table_statements(table)))
    yield from group(name, "while loading", lines(copy_statement(records_into(table.identifier))))
    yield from group(name, "for rows that are loaded again, or are gone", lines(removed))
    yield from group(name, "once all rows are loaded", lines(key_statement(table, names["key"]), *indexes, gin))
    yield from group(name, "while catching up", lines(*merge_statements(table)))
    if not plan.limited:
        yield from group(name, "at the cutover", lines(*switch_statements(connection, plan.run_id, target)))
