"""The old vectors of a live table's snapshot, written back into a column of the table.

A row gets its vector where it is still there and says what it said when the snapshot was made: no row is to be found by what it said
before. What others do in the table goes first, as when a column is filled by a run.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.runs import models
from tasks.runs.checkpoints import Mark
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Refilled, named
from tasks.shadows.postgres import one_more_column
from tasks.shadows.postgres.bystanders import watched
from tasks.shadows.postgres.live.rows import PIECE_ROWS
from tasks.shadows.postgres.live.statements import firing, restoring
from tasks.stores.postgres import pace, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import LiveTable, quoted
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.wire import vector_array

LONGEST = 63
"""Bytes of a name, which PostgreSQL cuts otherwise."""


@dataclass(frozen=True)
class RestoredColumn:
    """Satisfies Refill."""

    run: Run
    target: Target[LivePlace]
    column: str
    dimensions: int

    @property
    def live(self) -> LiveTable:
        return self.target.place.live

    @property
    def name(self) -> str:
        return f"{self.target.collection.name}.{self.column}"

    def is_empty(self, begun: bool) -> bool:
        self._refuse_name()
        with self.run.connection() as connection:
            if not relations.exists(connection, self.live.identifier):
                raise UsageError(
                    f"there is no table {self.target.collection.name} any more: write the snapshot out with --format jsonl"
                )
            model = models.at(connection, self.live.schema, self.live.table, self.column)
            if model and model.run_id:
                raise UsageError(f"{self.name} holds the vectors of run {model.run_id}: name another column")
            if not self._is_there(connection):
                self._refuse_more(connection)
                return True
            query = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} WHERE {} IS NOT NULL)").format(
                self.live.identifier, sql.Identifier(self.column)
            )
            with pace.turn(connection):
                row = connection.execute(query).fetchone()
        if row == (True,) and not begun:
            raise UsageError(
                f"{self.name} holds vectors already, and nothing is overwritten: name another column, or drop that one"
            )
        return row == (False,)

    def make(self) -> None:
        with self.run.connection() as connection:
            if not relations.has_column(connection, self.live.identifier, self.column):
                locked(connection, lambda: connection.execute(self._make))

    def fill(self, page: pa.Table, mark: Callable[[Refilled], Mark]) -> None:
        page = page.filter(pc.is_valid(page["embedding"])).combine_chunks()
        last = max(0, page.num_rows - 1) // PIECE_ROWS * PIECE_ROWS
        done: dict[str, list[str]] = defaultdict(list)
        with self.run.connection() as connection, self.run.turn(connection) as turn:
            for at in range(0, last, PIECE_ROWS):
                with connection.transaction():
                    self._piece(connection, page.slice(at, PIECE_ROWS), done)
                turn.rest()
            with connection.transaction():
                self._piece(connection, page.slice(last), done)
                kinds = (named(done[kind]) for kind in ("gone", "changed", "taken"))
                mark(Refilled(len(done["restored"]), *kinds)).write(connection)

    def _piece(self, connection: Connection, page: pa.Table, done: dict[str, list[str]]) -> None:
        if not page.num_rows:
            return
        ids, packed = page["id"].to_pylist(), vector_array(connection, page, self.live.layout.type)
        # A row without a text has a hash in a page, and none in SQL.
        texts = zip(page["document"].to_pylist(), page["content_hash"].to_pylist(), strict=True)
        hashes = [None if text is None else hashed for text, hashed in texts]
        with self._watched(connection, ids, hashes):
            rows = connection.execute(self._fill, (ids, hashes, packed), prepare=False).fetchall()
        for name, kind in rows:
            done[kind].append(name)

    def _watched(
        self, connection: Connection, ids: Sequence[str], hashes: Sequence[bytes | None]
    ) -> AbstractContextManager[None]:
        row = connection.execute(firing(self.live, self.column)).fetchone()
        assert row
        if not row[0]:
            return nullcontext()
        return watched(self.run, self.target, connection, self.column, row[0], ids, hashes)

    @cached_property
    def _make(self) -> sql.Composed:
        live = self.live
        kind = {"type": live.layout.type, "dims": self.dimensions}
        return statement("restore_column", schema=live.schema, table=live.table, column=self.column, **kind)

    @cached_property
    def _fill(self) -> sql.Composed:
        return restoring(self.target.place, self.column)

    def advice(self) -> str | None:
        layout = self.live.layout
        if layout.index_type is None:
            return None
        operand, table = layout.operand(quoted(self.column)), self.live.identifier.as_string()
        return f"{self.name} has no index yet: CREATE INDEX CONCURRENTLY ON {table} USING hnsw (({operand}) {layout.opclass})"

    def _refuse_name(self) -> None:
        if self.column == self.target.place.new_column:
            raise UsageError(
                f"{self.name} is the column of the new vectors of run {self.run.run_id}: name another column"
            )
        if not self.column or "%" in self.column or len(self.column.encode()) > LONGEST:
            raise UsageError(
                f"{self.column!r} cannot be a column: a name has at most {counted(LONGEST, 'byte')}, and no %"
            )

    def _refuse_more(self, connection: Connection) -> None:
        """Raises UsageError where the table takes no column, or the application misses a table without it."""
        way = "write the snapshot out with --format jsonl"
        for line in one_more_column.unwritable(connection, self.live, self.column):
            raise UsageError(f"{line}: {way}")
        if broken := [name for name, stops in one_more_column.read(connection, self.live) if stops]:
            raise UsageError(
                f"{self.target.collection.name}: one more column breaks {', '.join(broken)}: name the columns there, in place of * or "
                f"of all columns, or {way}"
            )

    def _is_there(self, connection: Connection) -> bool:
        row = connection.execute(
            "SELECT format_type(a.atttypid, a.atttypmod), t.typname, a.atttypmod, a.attgenerated <> '' FROM pg_attribute a "
            "JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass(%s) AND a.attname = %s AND NOT a.attisdropped",
            (self.live.identifier.as_string(), self.column),
        ).fetchone()
        if row is None:
            return False
        kind, name, dimensions, generated = row
        wanted = self.live.layout.type, self.dimensions
        if generated:
            raise UsageError(f"{self.name} is there, and is generated by PostgreSQL: name another column")
        if (name, dimensions) != wanted:
            raise UsageError(
                f"{self.name} is there, and is {kind}, not {wanted[0]}({wanted[1]}) as the snapshot: name another column"
            )
        return True
