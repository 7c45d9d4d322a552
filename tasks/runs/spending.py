"""What a run buys: its models, opened with its budget; what was spent and saved, kept with the run; and who buys what now.

A budget holds over all starts of a run and over all processes that work on it: what the others spent is read from the ledger
before each request.
"""

import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.base.errors import UsageError, VecferryError
from tasks.embedders.budget import Budget, Spent
from tasks.embedders.interface import Embedder, Space
from tasks.embedders.registry import open_embedder
from tasks.runs.keeper import Recovered
from tasks.runs.rates import LedgerRates
from tasks.runs.run import Run
from tasks.runs.same_model import refuse_another
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection

POLL = 0.2
"""Seconds between two looks at whether another process has done with what it claimed."""
_CLAIMED = (
    "SELECT content FROM vecferry.claim WHERE space = %s AND content = ANY(%b::bytea[]) AND owner <> pg_backend_pid()"
)

logger = logging.getLogger("vecferry")


@dataclass(frozen=True)
class Spending:
    """What a run has spent on vectors, and what it did not have to."""

    requests: int
    tokens: int
    dollars: float
    bought: int
    """Texts."""
    reused: int
    """Texts whose vectors were there already."""

    @property
    def saved(self) -> float:
        """Dollars that the reused texts would have cost at the price of those that were bought."""
        return self.dollars / self.bought * self.reused if self.bought else 0.0


class Claims:
    """Who of one run's threads in this process makes which vectors now: nobody makes again what another is at. Nothing is
    claimed while what others have claimed is waited for; so no two wait for each other."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, bytes]] = set()
        self._freed = threading.Condition()

    def in_turn(self, space: str, keys: Sequence[bytes]) -> Generator[list[bytes]]:
        """Yields all of ``keys``, in parts: those that no other thread has now, then those that others had. A part is
        claimed until the next is asked for or the iteration is closed."""
        left = list(keys)
        while left:
            with self._freed:
                while not (free := [key for key in left if (space, key) not in self._taken]):
                    self._freed.wait()
                self._taken.update((space, key) for key in free)
            try:
                yield free
            finally:
                with self._freed:
                    self._taken.difference_update((space, key) for key in free)
                    self._freed.notify_all()
            done = set(free)
            left = [key for key in left if key not in done]


@dataclass
class Purse:
    """The money of one run in this process, and the models that it is spent on. Who has begun to spend keeps to it: the run
    may be let go meanwhile."""

    run: Run
    budget: Budget = field(init=False)
    noted: Spent = field(default_factory=Spent)
    """How much the ledger has of what was spent since."""
    models: dict[str, Embedder] = field(default_factory=dict)
    claims: Claims = field(default_factory=Claims)

    def __post_init__(self) -> None:
        self.budget = Budget(self.run.plan.request.budget_usd, elsewhere=self._elsewhere)
        self._noting = threading.Lock()
        self._buyers, self._done = 0, threading.Condition()

    def model(self, name: str | None) -> Embedder:
        """The model of that name; what it costs counts against the budget. Raises UsageError where the run was planned with another
        of that name."""
        assert name
        if name not in self.models:
            opened = open_embedder(name, self.budget, LedgerRates(self.run.connection))
            refuse_another(self.run.plan, name, opened)
            self.models[name] = opened
        return self.models[name]

    @contextmanager
    def buying(self) -> Iterator[None]:
        """What the body buys, it keeps: the purse is not closed meanwhile."""
        with self._done:
            self._buyers += 1
        try:
            yield
        finally:
            with self._done:
                self._buyers -= 1
                self._done.notify_all()

    def note(self, connection: Connection, bought: int = 0, reused: int = 0) -> None:
        """Adds to the ledger what was spent since the last time."""
        with self._noting:
            spent = self.budget.spent
            since = spent.since(self.noted) if spent != self.noted else Spent()  # local models spend none
            if not (bought or reused or spent != self.noted):
                return
            connection.execute(
                "UPDATE vecferry.run SET requests = requests + %s, tokens = tokens + %s, dollars = dollars + %s, "
                "bought = bought + %s, reused = reused + %s WHERE run_id = %s",
                (since.requests, since.tokens, since.dollars, bought, reused, self.run.run_id),
            )
            self.noted = spent

    def close(self) -> None:
        """Nothing more is bought; what is under way is waited for, kept and noted."""
        self.budget.close(f"run {self.run.run_id} has ended")
        with self._done:
            while self._buyers:
                self._done.wait()
        if self.budget.spent == self.noted:
            return
        try:
            with self.run.refusable("note what was spent"), self.run.connection() as connection:
                self.note(connection)
        except VecferryError as error:
            left = self.budget.spent.dollars - self.noted.dollars
            logger.warning("run %s spent $%.6f more than its ledger says: %s", self.run.run_id, left, error)

    def _elsewhere(self) -> float:
        """Dollars that earlier starts and other processes have spent."""
        with self._noting, self.run.connection() as connection:
            return spending(connection, self.run.run_id).dollars - self.noted.dollars


def purse(run: Run) -> Purse:
    """The run's in this process."""
    return run.own(Purse, lambda: Purse(run))


def embedder_of(run: Run, model: str | None = None) -> Embedder:
    """The run's model, or the one named."""
    return purse(run).model(model or run.plan.request.embedder)


def lacking(connection: Connection, tables: Sequence[str] = ("claim", "rate", "vector")) -> Iterator[str]:
    """What this role may not do with the tables that are used only while vectors are bought, where the ledger is another
    role's: the statements that grant it."""
    rows = connection.execute(
        "SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON vecferry.%%I TO %%I', relname, current_user) FROM pg_class "
        "WHERE relnamespace = to_regnamespace('vecferry') AND relname = ANY(%s) AND EXISTS (SELECT FROM "
        "unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS t (is_right) WHERE NOT has_table_privilege(oid, is_right)) "
        "ORDER BY relname",
        (list(tables),),
    )
    for (statement,) in rows:
        yield f"this role lacks a right on the ledger that buying vectors needs: {statement}"


def begin(run: Run) -> None:
    """Asks a paid model for two short texts, so that a wrong key, name or dimension is known before anything is read, and
    forgets why an earlier run in this process was stopped. Raises FatalError, and UsageError where the model does not take
    what it is to be given, or the role may not buy."""
    if run.plan.request.embedder is None:
        return
    with run.kept_open():
        money = purse(run)
        money.models.clear()  # its key may be another one by now
        embedder = money.model(run.plan.request.embedder)
        if unfit := {kind for t in run.plan.targets for kind in (t.content.gives, t.content.asked)} - embedder.takes:
            raise UsageError(
                f"{run.plan.request.embedder} takes {' and '.join(embedder.takes)}, not {' or '.join(unfit)}"
            )
        if embedder.account:
            with run.connection() as connection:
                if problems := list(lacking(connection)):
                    raise UsageError("; ".join(problems))
            try:
                embedder.account.prepare()
            finally:
                with run.connection() as connection:
                    money.note(connection)


def spending(connection: Connection, run_id: str) -> Spending:
    """What the run has spent in all its starts."""
    row = connection.execute(
        "SELECT requests, tokens, dollars, bought, reused FROM vecferry.run WHERE run_id = %s", (run_id,)
    ).fetchone()
    return Spending(*row) if row else Spending(0, 0, 0.0, 0, 0)


@contextmanager
def claimed(connection: Connection, space: Space, keys: Sequence[bytes], recovered: Recovered) -> Iterator[list[bytes]]:
    """Yields those of ``keys`` that are this session's to buy while the body runs: neither claimed by another one that
    lives, on whichever machine, nor kept by now. ``connection`` must not be in a transaction.

    A claim lives as long as the session that made it: PostgreSQL ends the session of a process that was killed, and with it
    the advisory lock by which others know that its claims hold. What another had claimed may have been bought all the same, and
    not be indexed: ``recovered`` is told, and nothing is yielded, so that it is looked for once more.
    """
    free, others = list[bytes](), set[bytes]()
    try:
        with pace.turn(connection) as turn:
            for part in turn.cut(len(keys)):
                given = (space.fingerprint, keys[part])
                others.update(content for (content,) in connection.execute(_CLAIMED, given, binary=True))
                rows = connection.execute("SELECT * FROM vecferry.claim_contents(%s, %b::bytea[])", given, binary=True)
                free += [content for (content,) in rows]
        if others.isdisjoint(free):
            yield free
        else:
            recovered.forget(space)
            yield []
    finally:
        if not connection.closed:
            connection.execute("SELECT vecferry.release_contents()")
