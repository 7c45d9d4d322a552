"""What every stage is handed: the frozen plan, and the way to the places it names. Ids travel between tasks; this is
opened where the work is done."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

from tasks.base import files, memory, settings
from tasks.base.errors import UsageError
from tasks.base.words import batches_named
from tasks.runs import checkpoints, holding, ledger
from tasks.runs.database import database_url
from tasks.runs.keeper import Recovered
from tasks.runs.plan import Plan, Target
from tasks.stores import registry
from tasks.stores.interface import AT_ONCE, Records, Selected, Source, Turn
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection, refusable
from tasks.stores.postgres.idle import Connections
from tasks.stores.postgres.pace import Pace

T = TypeVar("T")

_owned: dict[tuple[str, str], dict[type, Any]] = defaultdict(dict)
"""What runs own in this process, by database and run_id. Process-wide, because each task of Prefect's opens its run anew, on
whichever thread: here they find what the others have made. Emptied when the run is let go."""
_keepers: dict[tuple[str, str], int] = defaultdict(int)
"""How many of this process's flows keep it open."""
_let_go: set[tuple[str, str]] = set()
"""Those that this process has worked on and let go: a thread of theirs may still be at work, and must not buy anything."""
_lock = threading.RLock()


@runtime_checkable
class Closing(Protocol):
    """What a run owns that has to end before the run is let go."""

    def close(self) -> None: ...


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
        return registry.open_source(self.plan.request.source, selected, fresh, self.connection)

    def records(self, target: Target[Any], fresh: bool = True) -> Records:
        """The target's records at the source, opened as ``source`` opens it."""
        return self.source(fresh).records(target.collection.name)

    def refusable(self, doing: str) -> AbstractContextManager[None]:
        """While the body runs, what the run's database refuses is raised as one of our classes, in the database's words."""
        return refusable(doing)

    @contextmanager
    def giving_way(self, share: float) -> Iterator[None]:
        """While the body runs, work in the run's database takes at most ``share`` (0 to 1] of the time when others use it."""
        with pace.giving_way(self.url, share) as kept:
            _owned[self.url, self.run_id][Pace] = kept
            try:
                yield
            finally:
                _owned[self.url, self.run_id].pop(Pace, None)

    @property
    def recovered(self) -> Recovered:
        """In which spaces it has taken in what killed processes had kept."""
        return self.own(Recovered, Recovered)

    def turn(self, connection: Connection) -> AbstractContextManager[Turn]:
        """One piece of work in the run's database, followed by a rest where way is given to others."""
        gives_way = Pace in _owned.get((self.url, self.run_id), ())
        return pace.turn(connection) if gives_way else nullcontext(AT_ONCE)

    def rested(self) -> float:
        """Seconds that this process rested so far so that others came first in the run's database."""
        with self.connection() as connection:
            return pace.rested(connection)

    def connection(self) -> AbstractContextManager[Connection]:
        """A connection whose name tells a successor that it is this run's."""
        return _connections(self.url, self.run_id).connection(self._application)

    @cached_property
    def _application(self) -> str:
        return holding.application(self.run_id)

    def own(self, kind: type[T], make: Callable[[], T]) -> T:
        """What this run has one of in this process, such as its purse; made when it is first asked for. What has a ``close`` is
        closed after the run was let go, until it is kept open again."""
        key = (self.url, self.run_id)
        with _lock:
            owned = _owned[key]
            if kind not in owned:
                made = owned[kind] = make()
                if key in _let_go and isinstance(made, Closing):
                    made.close()
            thing: T = owned[kind]
            return thing

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """While the body runs, connections stay open between two uses; what the run owns here is let go after it, and closed
        where it has a ``close``: what other threads are at is waited for by that."""
        key = (self.url, self.run_id)
        with _lock:
            if key in _let_go:
                _let_go.remove(key)
                _owned.pop(key, None)
            _keepers[key] += 1
            self.own(Connections, lambda: Connections(self.url, kept=True))
        try:
            try:
                yield
            finally:
                with _lock:
                    owned = list(_owned[key].values()) if _keepers[key] == 1 else []
                    if owned:
                        _let_go.add(key)
                for thing in reversed(owned):  # connections last: the others end their work through them
                    if isinstance(thing, Closing):
                        thing.close()
        finally:
            with _lock:
                _keepers[key] -= 1
                if not _keepers[key]:
                    del _keepers[key]
                    _owned.pop(key, None)


def open_run(run_id: str, database: str) -> Run:
    """Opens the run whose ledger is in the database called ``database``. Raises UsageError when there is none."""
    memory.bounded()
    url = database_url(database)
    connections = _connections(url, run_id)
    # Where nobody keeps it open here, another process may be about to end what is called as the run's is.
    with connections.connection(holding.application(run_id) if connections.kept else "vecferry") as connection:
        return Run(ledger.get(connection, run_id).plan, url, settings.home())


def _connections(url: str, run_id: str) -> Connections:
    """Those that the run keeps while somebody works on it; else each is closed after its use."""
    with _lock:
        connections: Connections | None = _owned.get((url, run_id), {}).get(Connections)
    return connections or Connections(url)


def chosen(connection: Connection, run_id: str, batch_ids: list[int] | None) -> Callable[[int], bool]:
    """Which batches this invocation works on: all, or those named. Raises UsageError for a batch that is not there."""
    if batch_ids is None:
        return lambda _: True
    if not batch_ids:
        raise UsageError("batch_ids is empty: name the batches to rerun, or leave the parameter out for all")
    known = {b.number for b in checkpoints.batches(connection, run_id, "snapshot")}
    if unknown := sorted(set(batch_ids) - known):
        raise UsageError(
            f"run {run_id} has no batch {', '.join(map(str, unknown))}: it has "
            f"{batches_named(sorted(known)) if known else 'none yet'}"
        )
    wanted = set(batch_ids)
    return lambda number: number in wanted
