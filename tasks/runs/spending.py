"""What a run buys: the model opened with the run's budget, and what was spent and saved, kept with the run.

A budget holds over all starts of a run: what earlier ones spent is read from the ledger first.
"""

import threading
from dataclasses import dataclass

from tasks.embedders.budget import Budget, Spent
from tasks.embedders.interface import Embedder
from tasks.embedders.registry import open_embedder
from tasks.runs.run import Run
from tasks.stores.postgres.connection import Connection


@dataclass
class Purse:
    """The money of one run in this process."""

    budget: Budget
    noted: Spent
    """How much of it the ledger has."""


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


_purses: dict[tuple[str, str], Purse] = {}
_lock = threading.Lock()


def embedder_of(run: Run, model: str | None = None) -> Embedder:
    """The run's model, or the one named; what it costs counts against the run's budget."""
    name = model or run.plan.request.embedder
    assert name
    return open_embedder(name, _purse(run).budget)


def begin(run: Run) -> None:
    """Asks a paid model for two short texts, so that a wrong key, name or dimension is known before anything is read, and
    forgets why an earlier run in this process was stopped. Raises FatalError."""
    if run.plan.request.embedder is None:
        return
    if account := embedder_of(run).account:
        with run.connection() as connection:
            account.prepare()
            note(run, connection)


def note(run: Run, connection: Connection, bought: int = 0, reused: int = 0) -> None:
    """Adds to the ledger what was spent since the last time."""
    with _lock:
        purse = _purses.get((run.url, run.run_id))
        spent, before = (purse.budget.spent, purse.noted) if purse else (Spent(), Spent())
        if not (bought or reused or spent != before):
            return
        connection.execute(
            "UPDATE vecferry.run SET requests = requests + %s, tokens = tokens + %s, dollars = dollars + %s, "
            "bought = bought + %s, reused = reused + %s WHERE run_id = %s",
            (
                spent.requests - before.requests,
                spent.tokens - before.tokens,
                spent.dollars - before.dollars,
                bought,
                reused,
                run.run_id,
            ),
        )
        if purse:
            purse.noted = spent


def spending(connection: Connection, run_id: str) -> Spending:
    """What the run has spent in all its starts."""
    row = connection.execute(
        "SELECT requests, tokens, dollars, bought, reused FROM vecferry.run WHERE run_id = %s", (run_id,)
    ).fetchone()
    return Spending(*row) if row else Spending(0, 0, 0.0, 0, 0)


def _purse(run: Run) -> Purse:
    with _lock:
        key = (run.url, run.run_id)
        if key not in _purses:
            with run.connection() as connection:
                before = spending(connection, run.run_id)
            spent = Spent(before.requests, before.tokens, before.dollars)
            _purses[key] = Purse(Budget(run.plan.request.budget_usd, spent), spent)
        return _purses[key]
