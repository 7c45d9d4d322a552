"""What a process buys outside of runs: at the rate that all processes of an account have together, within a budget, and noted in the
ledger."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from tasks.base.errors import TransientError, UsageError, VecferryError
from tasks.embedders.budget import Budget, Spent
from tasks.embedders.interface import Account, Embedded, Embedder, Item, Kind, OnMade, Space
from tasks.embedders.registry import open_embedder
from tasks.runs import ledger_versions, purchases, spending
from tasks.runs.rates import LedgerRates
from tasks.stores.postgres.connection import Connection, refusable

TABLES = ("purchase", "rate")
"""Of the ledger, which are written where something is bought."""

LARGER = "Give a larger budget_usd: what was kept is not bought again"
TOMORROW = "Wait for the next day, of UTC, or start the service with a larger budget_usd"

logger = logging.getLogger("vecferry")


@dataclass(frozen=True)
class Allowance:
    """What may be spent, and by whom."""

    buyer: str = "client"
    """serve, ingest, search or client: what the ledger calls it."""
    dollars: float | None = None
    """None: as much as is asked for."""
    a_day: bool = False
    """Whether that is of each day, and of all processes of this buyer; else of this process."""


class Purchasing:
    """The money of one process. Threads share it."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Connection]], allowance: Allowance) -> None:
        """``connect`` lends a connection to the database of the ledger for a moment."""
        self.connect, self.allowance = connect, allowance
        if allowance.a_day:
            self.budget = Budget(allowance.dollars, elsewhere=self._elsewhere, of="a day", step=TOMORROW)
        else:
            self.budget = Budget(allowance.dollars, step=LARGER)
        self._rates = LedgerRates(connect)
        self._noting, self._noted = threading.Lock(), Spent()

    def open(self, name: str) -> Embedder:
        """The model of that name. Raises UsageError where there is none, where its price is not known and a budget is to hold, and
        where the ledger cannot keep that budget; without a budget that is told, and the model is asked all the same."""
        embedder = open_embedder(name, self.budget, self._rates)
        if embedder.account is None:
            return embedder
        limited = self.allowance.dollars is not None
        if limited and embedder.account.price is None:
            raise UsageError(
                f"the price of {name} is not known, so that budget_usd cannot hold: leave it out, or name the model with ?price=, in "
                "dollars per million tokens"
            )
        if why := self._refusal():
            if limited:
                raise UsageError(f"budget_usd cannot hold: {why}")
            logger.warning("%s is asked at a rate of this process alone, and what it costs is not noted: %s", name, why)
            return open_embedder(name)
        return Noted(embedder, self.note)

    def note(self) -> None:
        """Adds to the ledger what was spent since the last time."""
        with self._noting:
            spent = self.budget.spent
            if spent == self._noted:
                return
            since = spent.since(self._noted)
            try:
                with refusable("note what was spent"), self.connect() as connection:
                    purchases.add(connection, self.allowance.buyer, since)
            except VecferryError as error:  # what was bought is there: the next time it is noted too
                logger.warning("$%.6f more was spent than the ledger says: %s", since.dollars, error)
                return
            self._noted = spent

    def _elsewhere(self) -> float:
        """Dollars of today that others have spent, or this process before it was started again."""
        with self._noting, refusable("ask what was spent today"), self.connect() as connection:
            return purchases.dollars_today(connection, self.allowance.buyer) - self._noted.dollars

    def _refusal(self) -> str | None:
        """Why the ledger cannot be written; None where it can. Raises TransientError."""
        try:
            with refusable("prepare the ledger"), self.connect() as connection:
                row = connection.execute("SELECT current_setting('transaction_read_only')").fetchone()
                if row == ("on",):
                    return "this database takes no writes"
                ledger_versions.ensure(connection)
                return "; ".join(spending.lacking(connection, TABLES)) or None
        except TransientError:
            raise
        except VecferryError as error:
            return str(error)


@dataclass(frozen=True)
class Noted:
    """An embedder that has noted what it costs. Satisfies Embedder."""

    inner: Embedder
    note: Callable[[], None]

    @property
    def space(self) -> Space:
        return self.inner.space

    @property
    def takes(self) -> frozenset[Kind]:
        return self.inner.takes

    @property
    def account(self) -> Account | None:
        return self.inner.account

    @property
    def licence(self) -> str:
        return self.inner.licence

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return self.inner.variants(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        def made(positions: Sequence[int], vectors: np.ndarray) -> None:
            if on_made:
                on_made(positions, vectors)
            self.note()

        try:
            return self.inner.embed(items, made)
        finally:
            self.note()
