"""A table of its own in the schema vecferry, which takes its final name at the switch."""

import json
from dataclasses import dataclass

import pyarrow as pa
from psycopg import sql

from sql import statement
from tasks.base.errors import UsageError, VerificationRefused
from tasks.base.progress import Tell, quiet
from tasks.runs.commands import resumption
from tasks.runs.names import index_names, short, suffix
from tasks.runs.plan import Target
from tasks.shadows.difference import Difference
from tasks.shadows.postgres.comparing import Comparison, compare
from tasks.shadows.postgres.shadow import PostgresShadow
from tasks.stores.interface import Built, Turn
from tasks.stores.postgres import places, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.hnsw import build, existing
from tasks.stores.postgres.places import SCHEMA
from tasks.stores.postgres.table import Table, create_table, key_statement, remove
from tasks.stores.postgres.wire import copy_records


@dataclass(frozen=True)
class NewTable(PostgresShadow):
    """Satisfies Shadow."""

    target: Target[places.NewTable]

    def expand(self) -> None:
        target, source = self.target, self.run.plan.request.source
        what = json.dumps({"source": source, "collection": target.collection.name})
        with self.run.connection() as connection, connection.transaction():
            created = connection.execute(
                "INSERT INTO vecferry.relation (table_schema, table_name, run_id, target, role, source, space) "
                "VALUES (%s, %s, %s, %s, 'shadow', %s::text::jsonb, %s) ON CONFLICT DO NOTHING",
                (SCHEMA, target.place.shadow, self.run.run_id, target.number, what, target.space),
            )
            if created.rowcount:
                create_table(connection, target.place.hidden)

    def write(self, connection: Connection, page: pa.Table, reloading: bool, turn: Turn) -> None:
        table = self.target.place.hidden
        if reloading:
            remove(connection, table, page.column("id").to_pylist())
        copy_records(connection, table.identifier, page, table.layout.type, turn)

    def key(self) -> bool:
        table, name = (
            self.target.place.hidden,
            index_names(self.run.run_id, self.target.place.table, self.target.name)["key"],
        )
        with self.run.connection() as connection:
            if name in existing(connection, table):
                return False
            connection.execute(key_statement(table, name))
        return True

    def index(self) -> Built:
        table, names = self.target.place.hidden, index_names(self.run.run_id, self.target.place.table, self.target.name)
        with self.run.connection() as connection:
            built = build(connection, table, names["hnsw"], self.target.collection)
            if names["gin"] not in existing(connection, table):
                connection.execute(statement("expand_gin", schema=table.schema, table=table.name, index=names["gin"]))
            connection.execute(sql.SQL("ANALYZE {}").format(table.identifier))
        return built

    def table(self, connection: Connection) -> Table:
        row = connection.execute(
            "SELECT table_schema, table_name FROM vecferry.relation WHERE run_id = %s AND target = %s AND role <> 'previous'",
            (self.run.run_id, self.target.number),
        ).fetchone()
        if row is None:
            raise UsageError(
                f"run {self.run.run_id} no longer has a table for {self.target.name}: build it again, "
                f"{resumption(self.run.plan)}"
            )
        return Table(row[0], row[1], self.target.place.layout)

    def in_use(self) -> bool:
        return self._now().schema != SCHEMA

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return compare(
            Comparison(self.run, self.target, self._now(), self.run.records(self.target), apply=True), only, tell
        )

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return compare(Comparison(self.run, self.target, self._now(), self.run.records(self.target)), only, tell)

    def dependents(self, connection: Connection) -> list[str]:
        """Views, foreign keys, policies, triggers, publications, and functions with a SQL body."""
        final = self.target.place.final
        rows = connection.execute(statement("cutover_dependents", table=final.identifier.as_string())).fetchall()
        return [f"{kind} {name} depends on {final}" for kind, name in rows]

    def switch(self, connection: Connection) -> None:
        target, run_id = self.target, self.run.run_id
        taken = connection.execute(
            "SELECT c.relname, r.run_id, r.role FROM pg_class c LEFT JOIN vecferry.relation r "
            "ON r.table_schema = %s AND r.table_name = c.relname "
            "WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relname = %s",
            (target.place.schema, target.place.schema, target.place.table),
        ).fetchone()
        previous = None
        if taken:
            if taken[2] != "live":
                raise VerificationRefused(
                    f"{target.name} exists and is not vecferry's: rename it, or choose another name with `tables`"
                )
            previous = _previous(run_id, target)
            for one in _aside_statements(connection, run_id, target):
                connection.execute(one)
            connection.execute(
                "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'previous', stepped_aside_for = %s, "
                "stepped_aside_for_target = %s WHERE table_schema = %s AND table_name = %s",
                (SCHEMA, previous, run_id, target.number, target.place.schema, target.place.table),
            )
        _move(connection, target.place.hidden, target.place.schema, target.place.table)
        connection.execute(
            "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'live' WHERE table_schema = %s AND table_name = %s",
            (target.place.schema, target.place.table, SCHEMA, target.place.shadow),
        )

    def take_back(self, connection: Connection, switched: bool) -> str:
        return self._switch_back(connection) if switched else self._drop(connection)

    def contract(self, connection: Connection) -> list[str]:
        previous = connection.execute(
            "DELETE FROM vecferry.relation WHERE role = 'previous' AND stepped_aside_for = %s AND stepped_aside_for_target = %s "
            "RETURNING table_schema, table_name",
            (self.run.run_id, self.target.number),
        ).fetchall()
        for schema, name in previous:
            connection.execute(statement("contract_table", schema=schema, table=name))
        return [f"dropped {schema}.{name}" for schema, name in previous]

    def _now(self) -> Table:
        with self.run.connection() as connection:
            return self.table(connection)

    def _switch_back(self, connection: Connection) -> str:
        target = self.target
        row = connection.execute(
            "SELECT run_id FROM vecferry.relation WHERE table_schema = %s AND table_name = %s",
            (target.place.schema, target.place.table),
        ).fetchone()
        if row and row[0] != self.run.run_id:
            raise UsageError(
                f"{target.name} now belongs to run {row[0]}: roll that back first, vecferry rollback {row[0]}"
            )
        _move(connection, target.place.final, SCHEMA, target.place.shadow)
        connection.execute(
            "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'shadow' WHERE table_schema = %s AND table_name = %s",
            (SCHEMA, target.place.shadow, target.place.schema, target.place.table),
        )
        previous = connection.execute(
            "SELECT table_name FROM vecferry.relation WHERE role = 'previous' AND stepped_aside_for = %s AND stepped_aside_for_target = %s",
            (self.run.run_id, target.number),
        ).fetchone()
        if previous is None:
            return f"{target.name} was removed; its rows are kept in {SCHEMA}.{target.place.shadow}"
        _move(connection, Table(SCHEMA, previous[0], target.place.layout), target.place.schema, target.place.table)
        connection.execute(
            "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'live', stepped_aside_for = NULL, "
            "stepped_aside_for_target = NULL WHERE table_schema = %s AND table_name = %s",
            (target.place.schema, target.place.table, SCHEMA, previous[0]),
        )
        return f"{target.name} is the earlier table again; the new rows are kept in {SCHEMA}.{target.place.shadow}"

    def _drop(self, connection: Connection) -> str:
        hidden = self.target.place.hidden
        connection.execute(statement("contract_table", schema=hidden.schema, table=hidden.name))
        dropped = connection.execute(
            "DELETE FROM vecferry.relation WHERE run_id = %s AND target = %s AND role = 'shadow'",
            (self.run.run_id, self.target.number),
        ).rowcount
        what = "its shadow table was dropped" if dropped else "it had no shadow table yet"
        return f"{self.target.name} was not switched; {what}, and the snapshot is kept"


def switch_statements(connection: Connection, run_id: str, target: Target[places.TablePlace]) -> list[sql.Composed]:
    """What a switch sends that names the tables."""
    aside = _aside_statements(connection, run_id, target) if target.place.steps_aside else []
    return [*aside, _move_statement(target.place.hidden, target.place.schema, target.place.table)]


def _aside_statements(connection: Connection, run_id: str, target: Target[places.TablePlace]) -> list[sql.Composed]:
    """What gives the new table the grants of the one that has its name, and has that step aside."""
    grants = [
        statement(
            "grant_table_alike",
            privilege=sql.SQL(privilege),
            schema=target.place.hidden.schema,
            table=target.place.hidden.name,
            role=sql.SQL(grantee),
            option=sql.SQL("WITH GRANT OPTION" if grantable else ""),
        )
        for grantee, privilege, grantable in relations.grants(connection, target.place.final.identifier)
    ]
    return [*grants, _move_statement(target.place.final, SCHEMA, _previous(run_id, target))]


def _previous(run_id: str, target: Target[places.TablePlace]) -> str:
    return f"{short(target.place.table, 40)}__prev_{suffix(run_id, target.name)}"


def _move(connection: Connection, table: Table, schema: str, name: str) -> None:
    connection.execute(_move_statement(table, schema, name))


def _move_statement(table: Table, schema: str, name: str) -> sql.Composed:
    step = f"{short(name, 40)}__moving"
    return statement("cutover_move", schema=table.schema, table=table.name, step=step, to_schema=schema, to_table=name)
