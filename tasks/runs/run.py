"""What every stage is handed: the frozen plan, and the way to the places it names. Ids travel between tasks; this is
opened where the work is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.base import files, memory, settings
from tasks.base.errors import UsageError
from tasks.runs import checkpoints, holding, ledger
from tasks.runs.database import database_url
from tasks.runs.plan import Plan
from tasks.stores import registry
from tasks.stores.interface import Selected, Source
from tasks.stores.postgres import idle
from tasks.stores.postgres.connection import Connection


@dataclass(frozen=True)
class Run:
    """One run, opened in this process."""

    plan: Plan
    url: str
    """The database's connection string; never logged, never a parameter."""
    home: str

    @property
    def run_id(self) -> str:
        return self.plan.run_id

    def path(self, *parts: str) -> str:
        """A path below this run's own folder."""
        return files.join(self.home, "runs", self.run_id, *parts)

    def source(self, fresh: bool = True) -> Source:
        """The source, as it is now; without ``fresh``, as it was when this process last looked, where that is kept."""
        selected = [Selected(t.collection.name, t.collection.metric, t.place.rows) for t in self.plan.targets]
        return registry.open_source(self.plan.request.source, selected, fresh, self.url)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection whose name tells a successor that it is this run's."""
        with idle.connection(self.url, holding.application(self.run_id)) as connection:
            yield connection


def open_run(run_id: str, database: str) -> Run:
    """Opens the run whose ledger is in the database called ``database``. Raises UsageError when there is none."""
    memory.bounded()
    url = database_url(database)
    with idle.connection(url, "vecferry") as connection:
        return Run(ledger.get(connection, run_id).plan, url, settings.home())


def chosen(connection: Connection, run_id: str, batch_ids: list[int] | None) -> Callable[[int], bool]:
    """Which batches this invocation works on: all, or those named. Raises UsageError for a batch that is not there."""
    if batch_ids is None:
        return lambda _: True
    if not batch_ids:
        raise UsageError("batch_ids is empty: name the batches to rerun, or leave the parameter out for all")
    known = {b.number for b in checkpoints.batches(connection, run_id, "snapshot")}
    if unknown := sorted(set(batch_ids) - known):
        raise UsageError(f"run {run_id} has no batch {', '.join(map(str, unknown))}: it has {len(known)}, from 0")
    wanted = set(batch_ids)
    return lambda number: number in wanted
