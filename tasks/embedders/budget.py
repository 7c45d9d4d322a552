"""What was spent on a provider, and the limit that no request may pass."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.base.errors import FatalError, OverBudget
from tasks.base.words import money

NEW_RUN = "Start a new run with a larger budget_usd: what was bought is reused"


@dataclass(frozen=True)
class Spent:
    """What the provider has answered so far."""

    requests: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def plus(self, requests: int, tokens: int, dollars: float) -> "Spent":
        return Spent(self.requests + requests, self.tokens + tokens, self.dollars + dollars)

    def since(self, before: "Spent") -> "Spent":
        """What was spent since then."""
        return self.plus(-before.requests, -before.tokens, -before.dollars)


class Budget:
    """Counts what is spent, and keeps it under ``limit`` dollars where there is one. Threads share it.

    A request reserves its highest possible price before it is sent, so that the limit holds with many in flight.
    ``elsewhere`` tells what other processes have spent of the same limit, in dollars; it is asked before each request. What
    those have under way is not known here: so much the limit may be passed by.
    """

    def __init__(
        self,
        limit: float | None = None,
        spent: Spent | None = None,
        elsewhere: Callable[[], float] = lambda: 0.0,
        of: str = "",
        step: str = NEW_RUN,
    ) -> None:
        """``of`` says what the limit is of, such as a day, and ``step`` what to do where it is reached."""
        self.limit, self.of, self.step = limit, of, step
        self.spent = spent or Spent()
        self._ask, self._elsewhere = elsewhere, 0.0
        self._reserved = 0.0
        self._open = 0
        self._closed: str | None = None
        self._settled = threading.Condition()

    @property
    def left(self) -> float:
        """Dollars not spent yet, those held back for requests under way included; infinity without a limit."""
        with self._settled:
            return float("inf") if self.limit is None else self.limit - self._elsewhere - self.spent.dollars

    @contextmanager
    def reserve(self, price: Callable[[], float]) -> Iterator[None]:
        """Holds back what one request may cost at most while it is under way; ``price`` says that in dollars, as now
        known. Raises OverBudget when it does not fit, and FatalError once the budget is closed."""
        dollars = self._reserved_for(price)
        try:
            yield
        finally:
            with self._settled:
                self._open -= 1
                self._reserved -= dollars
                if self._reserved < 1e-12:  # sums of floats do not return to exactly zero
                    self._reserved = 0.0
                self._settled.notify_all()

    def add(self, tokens: int, dollars: float) -> None:
        """Counts one answered request."""
        with self._settled:
            self.spent = self.spent.plus(1, tokens, dollars)

    def close(self, reason: str) -> None:
        """No request starts from now on, nor is one tried again; returns when none is under way any more."""
        with self._settled:
            self._closed = reason
            while self._open:
                self._settled.wait()

    def check(self) -> None:
        """Raises FatalError where the budget is closed."""
        if self._closed:
            raise FatalError(self._closed)

    def _reserved_for(self, price: Callable[[], float]) -> float:
        while True:
            elsewhere = self._ask() if self.limit is not None else 0.0
            with self._settled:
                self.check()
                self._elsewhere = elsewhere
                if self._fits(dollars := price()):
                    self._reserved += dollars
                    self._open += 1
                    return dollars
                # What is in flight was reserved at its highest price: once it settles, this request may fit after all.
                if self._reserved > 0:
                    self._settled.wait()
                    continue
                spent = self._elsewhere + self.spent.dollars
                raise OverBudget(
                    f"the budget of {money(self.limit or 0.0)}{f' {self.of}' if self.of else ''} would be exceeded: "
                    f"{money(spent)} is spent and the next request may cost {money(dollars)}. It was not sent. {self.step}"
                )

    def _fits(self, dollars: float) -> bool:
        return self.limit is None or self._elsewhere + self.spent.dollars + self._reserved + dollars <= self.limit
