"""What shadows of a table that people go on using have in common: how its rows are followed, compared and read, wherever their new
vectors lie."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Self

from psycopg import sql

from tasks.base.errors import UsageError, VecferryError
from tasks.base.progress import Tell, quiet
from tasks.runs import models
from tasks.runs.commands import command, resumption
from tasks.shadows.difference import Coverage, Difference, Named
from tasks.shadows.postgres import columns
from tasks.shadows.postgres.live import comparison, place, queue
from tasks.shadows.postgres.live.access import share, shut_out
from tasks.shadows.postgres.live.rows import LiveRows
from tasks.stores.interface import Records
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.records import TableRecords
from tasks.stores.postgres.table import describe

logger = logging.getLogger("vecferry")


@dataclass(frozen=True)
class LiveShadow(LiveRows):
    """Shadow, but for what is made and how it is switched."""

    @property
    def live(self) -> LiveTable:
        return self.target.place.live

    @property
    def side(self) -> sql.Identifier:
        return place.side_table(self.target.place)

    def now(self, connection: Connection) -> Self:
        """The same with the columns as they are called now."""
        return replace(self, target=columns.current(connection, self.target))

    def named(self) -> Self:
        """The same, by a connection of its own."""
        with self.run.connection() as connection:
            return self.now(connection)

    def settled(self) -> str:
        """SQL condition: a row that waits in the queue may say something else by now than its vector does."""
        waiting = f"SELECT q.id FROM {place.queue(self.target.place).as_string()} AS q WHERE q.id IS NOT NULL"
        return f"{self.live.document()} IS NOT NULL AND {self.live.id()} NOT IN ({waiting})"

    def old(self) -> AbstractContextManager[Records] | None:
        with self.run.connection() as connection:
            live = self.now(connection).live
            gone = describe(connection, live.old.schema, live.old.table, live.old.column) is None
        return None if gone else self._old(live)  # they are dropped by a contract, of this run or of the one before

    @contextmanager
    def _old(self, live: LiveTable) -> Iterator[Records]:
        with self.run.connection() as connection:
            yield TableRecords(connection, replace(live.records, settled=self.settled()))

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """What the queue holds now, and not what comes to it meanwhile: under steady writes a pass ends too."""
        self._refuse_retired()
        shadow = self.named()
        with self.run.connection() as connection:  # with those who were let in since
            if shut_out(connection, shadow.target):
                locked(connection, lambda: share(connection, shadow.target))
        return queue.follow(shadow, only)

    def gone_back(self) -> None:
        """Of the rows that wait: by the old model alone, since the new one may be the reason to go back. They go on waiting."""
        try:
            queue.renew_old(self.named())
        except VecferryError as error:
            repeated = command("rollback", self.run.run_id, self.run.plan.request.database)
            logger.warning(
                "%s is gone back to, and rows that were changed shortly before have no vector of what they say: %s; %s tries again",
                self.target.collection.name,
                error,
                repeated,
            )

    def reread(self) -> None:
        self._refuse_retired()
        queue.note_all(self.named())

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        self._refuse_retired()
        shadow = self.named()
        difference = comparison.compare(self.run, shadow.target, only)
        if shadow.target.place.shared:
            difference += Difference(stale=queue.overwritten(shadow, only))
        return difference

    def _refuse_retired(self) -> None:
        with self.run.connection() as connection:
            self.refuse_retired(connection)

    def refuse_retired(self, connection: Connection) -> None:
        """Raises UsageError when what the run made is there no longer: else that would be told in the database's words."""
        models.refuse_retired(connection, self.run.run_id, self.target.number)
        if not relations.exists(connection, self.side):
            raise UsageError(
                f"run {self.run.run_id} no longer has {self.target.name}: build it again, {resumption(self.run.plan)}"
            )

    def coverage(self) -> Coverage | None:
        self._refuse_retired()
        return None if self.target.limit else comparison.coverage(self.run, self.named().target)

    def stuck(self) -> Named:
        self._refuse_retired()
        return queue.stuck(self.named())
