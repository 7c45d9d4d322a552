"""Vectors of another space for a table that people go on using: in a column of it, or in a table beside it.

    live_place        what is made for it: column or table, queue, triggers
    live_rows         how rows are written, and guarded against changes meanwhile
    live_queue        how changes are followed
    live_comparison   how it is held against the table
    strangers         what keeps two spaces out of one column
    search_functions  how it is searched, and switched
    live_access       who may read it

The queue is made before the first row is listed, so a row is right, or it is in the queue.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from psycopg import sql

from tasks.base.errors import UsageError
from tasks.base.progress import Tell, quiet
from tasks.runs.commands import resumption
from tasks.runs.names import index_names
from tasks.runs.plan import Target
from tasks.shadows.difference import Difference
from tasks.shadows.postgres import live_comparison, live_place, live_queue, search_functions
from tasks.shadows.postgres.live_access import view_name
from tasks.shadows.postgres.live_rows import LiveRows
from tasks.shadows.postgres.shadow import PostgresShadow
from tasks.shadows.postgres.strangers import refuse_strangers
from tasks.stores.interface import Records
from tasks.stores.postgres import hnsw
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import LiveTable, quoted
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.pace import Turn
from tasks.stores.postgres.places import SCHEMA, LivePlace
from tasks.stores.postgres.records import TableRecords
from tasks.stores.postgres.table import Table

PIECE_ROWS = 10
"""Rows of a live table that are updated at once: a few milliseconds where the table has an HNSW index."""


@dataclass(frozen=True)
class LiveColumn(PostgresShadow):
    """Satisfies Shadow."""

    target: Target[LivePlace]

    @property
    def live(self) -> LiveTable:
        return self.target.place.live

    @property
    def side(self) -> sql.Identifier:
        return live_place.side_table(self.target)

    @property
    def rows(self) -> LiveRows:
        return LiveRows(self.target)

    def expand(self) -> None:
        with self.run.connection() as connection:
            refuse_strangers(connection, self.run.run_id, self.target)
            locked(connection, lambda: live_place.make(connection, self.run.run_id, self.target))

    @property
    def piece_rows(self) -> int | None:  # type: ignore[override]
        return None if self.target.place.beside else PIECE_ROWS

    def write(self, connection: Connection, page: pa.Table, again: bool, turn: Turn) -> None:
        self.rows.write(connection, page, again, turn)

    def refuse(self, connection: Connection, rejected: pa.Table) -> None:
        self.rows.refuse(connection, rejected)

    def index(self) -> dict[str, Any]:
        with self.run.connection() as connection:
            return self._index(connection)

    def _index(self, connection: Connection) -> dict[str, Any]:
        target, name = self.target, index_names(self.run.run_id, self.target.place.table, self.target.name)["hnsw"]
        if target.place.beside:
            built = hnsw.build(
                connection, Table(SCHEMA, target.place.shadow, target.place.layout), name, target.collection
            )
            connection.execute(sql.SQL("ANALYZE {}").format(self.side))
        else:
            built = hnsw.build(connection, self.table(connection), name, target.collection, concurrently=True)
        locked(connection, lambda: search_functions.make_v2(connection, target))
        return built

    def table(self, connection: Connection) -> Table:
        target, live = self.target, self.live
        place = (SCHEMA, view_name(target)) if target.place.beside else (target.place.schema, target.place.table)
        if connection.execute("SELECT to_regclass(%s)", (self.side.as_string(),)).fetchone() == (None,):
            raise UsageError(
                f"run {self.run.run_id} has nothing of {target.name} any more: {resumption(self.run.plan)}"
            )
        said = f"{live.said()}, NULL::text, NULL::text"
        return Table(*place, target.place.layout, live.id(), quoted(target.place.new_column), said, self._settled())

    def _settled(self) -> str:
        """SQL condition: a row that waits in the queue may say something else by now than its vector does."""
        waiting = f"SELECT q.id FROM {live_place.queue(self.target).as_string()} AS q WHERE q.id IS NOT NULL"
        return f"{self.live.said()} IS NOT NULL AND {self.live.id()} NOT IN ({waiting})"

    def old(self) -> AbstractContextManager[Records]:
        return self._old()

    @contextmanager
    def _old(self) -> Iterator[Records]:
        with self.run.connection() as connection:
            yield TableRecords(connection, replace(self.live.records, ours=self._settled()))

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """What the queue holds now, and not what comes to it meanwhile: under steady writes a pass ends too."""
        return live_queue.follow(self.run, self.target, only)

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return live_comparison.compare(self.run, self.target, only)

    def dependents(self, connection: Connection) -> list[str]:
        return search_functions.problems(connection, self.target)

    def switch(self, connection: Connection) -> None:
        refuse_strangers(connection, self.run.run_id, self.target)
        search_functions.switch(connection, self.run.run_id, self.target)
        connection.execute(
            "UPDATE vecferry.relation SET role = 'live' WHERE table_schema = %s AND table_name = %s",
            (SCHEMA, self.target.place.shadow),
        )

    def take_back(self, connection: Connection, switched: bool) -> str:
        target = self.target
        if not switched:
            search_functions.drop(connection, target)
            live_place.drop(connection, target)
            return f"{target.name} is not switched; it was dropped with its trigger and queue, the vectors are kept"
        search_functions.switch_back(connection, target)
        connection.execute(
            "UPDATE vecferry.relation SET role = 'shadow' WHERE table_schema = %s AND table_name = %s",
            (SCHEMA, target.place.shadow),
        )
        return f"{target.place.schema}.{target.place.table} is searched by {self.live.vectors} again; {target.place.new_column} is kept"

    def contract(self, connection: Connection) -> list[str]:
        target, live = self.target, self.live
        search_functions.contract(connection, target)
        connection.execute(
            sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(live.identifier, sql.Identifier(live.vectors))
        )
        dropped = [f"dropped {target.place.schema}.{target.place.table}.{live.vectors} and its indexes"]
        if target.place.beside:
            return dropped  # the table beside is kept current from its queue, or it would not be at all
        live_place.drop_triggers(connection, target)
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self.side))
        return [*dropped, f"dropped the triggers and the queue of {target.place.schema}.{target.place.table}"]
