"""Whether a server is well. Who doubts it has it asked for a text that it took before, and meanwhile nobody sends anything."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.base.errors import TransientError, VecferryError

LOOK = 0.1
"""Seconds between two looks of a waiting thread at whether it is to stop."""
REST = 30.0
"""Seconds in which nothing is sent to a server that was waited for in vain; then it is asked once more."""


class Paused(VecferryError):
    """Nothing may be sent now: somebody finds out whether the server is well."""


class Health:
    """Shared by all threads that ask one model of one server."""

    def __init__(self) -> None:
        self.sick = False
        """Nothing that was sent since has passed."""
        self.waited: float | None = None
        """When somebody had waited for that in vain, by the server's clock."""
        self.bouts = 0
        """How often it was found to be sick."""
        self.passed = float("-inf")
        """When the latest request was sent of those that passed."""
        self._keeper: int | None = None
        """The thread that keeps the others from sending."""
        self._trier: int | None = None
        """The thread that tries again what failed, of all whose requests did."""
        self._given_up: tuple[int, str] = (0, "")
        self._turn = threading.Condition()

    def well(self, sent: float) -> None:
        """A request that was sent then has passed."""
        with self._turn:
            self.passed = max(self.passed, sent)
            if self._trier is not None:
                self._turn.notify_all()
            if self.sick:
                self.sick, self.waited = False, None
                self._leave()

    def ill(self) -> None:
        """A text that was taken before is not taken now. Who has asked keeps the others waiting until it is, or gives up."""
        with self._turn:
            self.sick, self.bouts = True, self.bouts + 1

    def give_up(self, why: str, now: float) -> TransientError:
        """Those who wait fail with the same; returns the error to raise."""
        with self._turn:
            self.sick, self.waited = True, now
            self._given_up = (self._given_up[0] + 1, why)
            self._leave()
        return TransientError(why)

    def check(self) -> None:
        """Raises Paused where this thread may send nothing now."""
        if self._keeper not in (None, threading.get_ident()):
            raise Paused

    def enter(self, stop: Callable[[], None]) -> None:
        """Waits until something may be sent. Where the server is known to be sick one thread tries, and the others wait.
        Raises TransientError where that one has given up."""
        with self._turn:
            self._wait(stop)
            if self.sick:
                self._keeper = threading.get_ident()

    @contextmanager
    def alone(self, stop: Callable[[], None]) -> Iterator[None]:
        """Only this thread sends while the body runs, and after it until the server is well."""
        with self._turn:
            self._wait(stop)
            self._keeper = threading.get_ident()
        try:
            yield
        except BaseException:
            self.leave()
            raise
        if not self.sick:
            self.leave()

    def one_tries(self, failed: float, stop: Callable[[], None]) -> None:
        """Returns to one thread at a time of those whose requests have failed, and to all when one sent after ``failed`` has
        passed. Raises TransientError where the one has given up."""
        with self._turn:
            self._wait(stop, lambda: self._trier if self.passed <= failed else None)
            if self.passed <= failed:
                self._trier = threading.get_ident()

    def leave(self) -> None:
        """Lets the others go, where this thread has kept them."""
        with self._turn:
            if self._trier == threading.get_ident():
                self._trier = None
                self._turn.notify_all()
            if self._keeper == threading.get_ident():
                self._leave()

    def _wait(self, stop: Callable[[], None], whom: Callable[[], int | None] | None = None) -> None:
        before, whom = self._given_up[0], whom or (lambda: self._keeper)
        while whom() not in (None, threading.get_ident()):
            stop()
            self._turn.wait(LOOK)
            if self._given_up[0] != before:
                raise TransientError(self._given_up[1])

    def _leave(self) -> None:
        self._keeper = None
        self._turn.notify_all()
