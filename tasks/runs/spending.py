"""What a run buys: its models, opened with its budget, and what was spent and saved, kept with the run.

A budget holds over all starts of a run and over all processes that work on it: what the others spent is read from the ledger
before each request.
"""

import threading
from dataclasses import dataclass, field

from tasks.base.errors import UsageError
from tasks.embedders.budget import Budget, Spent
from tasks.embedders.interface import Embedder
from tasks.embedders.registry import open_embedder
from tasks.runs.run import Run
from tasks.stores.postgres.connection import Connection


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


@dataclass
class Purse:
    """The money of one run in this process, and the models that it is spent on."""

    run: Run
    budget: Budget = field(init=False)
    noted: Spent = field(default_factory=Spent)
    """How much the ledger has of what was spent since."""
    noting: threading.Lock = field(default_factory=threading.Lock)
    models: dict[str, Embedder] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.budget = Budget(self.run.plan.request.budget_usd, elsewhere=self._elsewhere)

    def _elsewhere(self) -> float:
        """Dollars that earlier starts and other processes have spent."""
        with self.noting, self.run.connection() as connection:
            return spending(connection, self.run.run_id).dollars - self.noted.dollars


def embedder_of(run: Run, model: str | None = None) -> Embedder:
    """The run's model, or the one named; what it costs counts against the run's budget."""
    name = model or run.plan.request.embedder
    assert name
    purse = run.own(Purse, lambda: Purse(run))
    if name not in purse.models:
        purse.models[name] = open_embedder(name, purse.budget)
    return purse.models[name]


def begin(run: Run) -> None:
    """Asks a paid model for two short texts, so that a wrong key, name or dimension is known before anything is read, and
    forgets why an earlier run in this process was stopped. Raises FatalError, and UsageError where the model does not take
    what it is to be given."""
    if run.plan.request.embedder is None:
        return
    run.own(Purse, lambda: Purse(run)).models.clear()  # its key may be another one by now
    embedder = embedder_of(run)
    if unfit := {t.content.gives for t in run.plan.targets} - embedder.takes:
        raise UsageError(f"{run.plan.request.embedder} takes {' and '.join(embedder.takes)}, not {' or '.join(unfit)}")
    if embedder.account:
        with run.connection() as connection:
            embedder.account.prepare()
            note(run, connection)


def note(run: Run, connection: Connection, bought: int = 0, reused: int = 0) -> None:
    """Adds to the ledger what was spent since the last time."""
    purse = run.own(Purse, lambda: Purse(run))
    with purse.noting:
        spent, before = purse.budget.spent, purse.noted
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
                run.plan.run_id,
            ),
        )
        purse.noted = spent


def spending(connection: Connection, run_id: str) -> Spending:
    """What the run has spent in all its starts."""
    row = connection.execute(
        "SELECT requests, tokens, dollars, bought, reused FROM vecferry.run WHERE run_id = %s", (run_id,)
    ).fetchone()
    return Spending(*row) if row else Spending(0, 0, 0.0, 0, 0)
