"""A live table of ours that gets the difference in place; a journal keeps what was replaced, so that it can be put back."""

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from psycopg import sql

from sql import statement
from tasks.base.errors import VerificationRefused
from tasks.base.progress import Tell, quiet
from tasks.base.words import counted
from tasks.runs.plan import Target
from tasks.shadows.difference import Difference, Named
from tasks.shadows.postgres.comparing import Comparison, compare, is_ours
from tasks.shadows.postgres.shadow import PostgresShadow
from tasks.stores.interface import Turn
from tasks.stores.postgres import places, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import Table


@dataclass(frozen=True)
class SyncedTable(PostgresShadow):
    """Satisfies Shadow: there is nothing to make or to load, and what is caught up is seen at once."""

    target: Target[places.SyncedTable]

    def expand(self) -> None:
        """The table is there."""

    def write(self, connection: Connection, page: pa.Table, reloading: bool, turn: Turn) -> None:
        raise AssertionError("a sync has no batches to load")

    def table(self, connection: Connection) -> Table:
        return self.target.place.final

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        if only is None:
            self._guard_deletes(max_deleted)
        table = self.target.place.final
        return compare(
            Comparison(self.run, self.target, table, self.run.records(self.target), True, journal=True), only, tell
        )

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return compare(
            Comparison(self.run, self.target, self.target.place.final, self.run.records(self.target)), only, tell
        )

    def changed(self, passes: Difference) -> Difference:
        """By the journal: what a start that was killed did counts too."""
        where: dict[str, Any] = {"run_id": self.run.run_id, "target": self.target.number}
        query = statement("sync_touched", schema=self.target.place.schema, table=self.target.place.table, **where)
        with self.run.connection() as connection:
            row = connection.execute(query).fetchone()
        assert row
        missing, stale, orphaned = map(Named, row)
        return replace(passes, missing=missing, stale=stale, orphaned=orphaned)

    def switch(self, connection: Connection) -> None:
        pass  # the table is searched already

    def take_back(self, connection: Connection, switched: bool) -> str:
        """Puts back what the sync replaced or removed, save rows that somebody else has changed since."""
        table, key = self.target.place.final, (self.run.run_id, self.target.number)
        rows = connection.execute(
            sql.SQL(
                "SELECT id, document, metadata::text, uri, content_hash FROM {} "
                "WHERE id IN (SELECT id FROM vecferry.undo WHERE run_id = %s AND target = %s)"
            ).format(table.identifier),
            key,
        ).fetchall()
        foreign = [name for name, *row in rows if not is_ours(*row)]
        connection.execute(
            "DELETE FROM vecferry.undo WHERE run_id = %s AND target = %s AND id = ANY(%s)", (*key, foreign)
        )
        where: dict[str, Any] = {
            "schema": table.schema,
            "table": table.name,
            "type": self.target.place.layout.type,
            "run_id": self.run.run_id,
            "target": self.target.number,
        }
        restored = connection.execute(statement("rollback_sync_restore", **where)).rowcount
        removed = connection.execute(statement("rollback_sync_remove", **where)).rowcount
        self._forget(connection)
        kept = f"; {counted(len(foreign), 'row', 'were')} changed since and left alone" if foreign else ""
        return f"{self.target.name}: {counted(restored, 'row')} put back, {removed:,} taken out again{kept}"

    def contract(self, connection: Connection) -> list[str]:
        undone = self._forget(connection)
        return [f"dropped what would undo {counted(undone, 'row')} of this sync"] if undone else []

    def _forget(self, connection: Connection) -> int:
        query = "DELETE FROM vecferry.undo WHERE run_id = %s AND target = %s"
        return connection.execute(query, (self.run.run_id, self.target.number)).rowcount

    def _guard_deletes(self, max_deleted: float) -> None:
        target = self.target
        with self.run.connection() as connection:
            rows = relations.estimated_count(connection, target.place.final.identifier)
        offered = self.run.records(target).count()
        if rows and offered < rows * (1 - max_deleted):
            raise VerificationRefused(
                f"{target.name} holds about {counted(rows, 'row')} and {target.collection.name} only {offered:,}: "
                f"a sync would delete more than {max_deleted:.0%}, so nothing was touched. If that is intended, "
                "run it with -p gates.max_deleted=1"
            )
