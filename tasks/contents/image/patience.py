"""Reading what cannot be had at once, with backoff and jitter."""

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.base.errors import TransientError
from tasks.base.words import counted
from tasks.embedders.interface import RowError

TRIES = 5
FIRST_DELAY = float(os.environ.get("VECFERRY_RETRY_SECONDS", "1"))
"""Seconds until the first retry, and twice as many until each later one."""
LONGEST_WAIT = 60.0
"""Seconds that a server's wish is waited for; who asks for more is left to the retries of the task."""


class Unavailable(TransientError):
    """One file was not to be had, however often it was tried. Whether that is its own fault, others of the same host tell."""


@dataclass(frozen=True)
class Later:
    """It was not to be had, and soon may be."""

    message: str
    seconds: float | None = None
    """That the server asks to wait."""
    throttled: bool = False
    """It is about who asks, and not about the file."""


@dataclass(frozen=True)
class Patience:
    """How often something is tried. Threads share it."""

    tries: int = TRIES
    first_delay: float = FIRST_DELAY
    stopped: threading.Event = field(default_factory=threading.Event)

    def read(self, name: str, attempt: Callable[[], bytes | RowError | Later], once: bool = False) -> bytes | RowError:
        """What an attempt brings, or the only one. Raises Unavailable when all were in vain or the server asks for more patience
        than there is, TransientError where that is about who asks, and at once when who reads has stopped."""
        tries = 1 if once else self.tries
        for number in range(tries):
            result = attempt()
            if not isinstance(result, Later):
                return result
            backoff = self.first_delay * 2**number * random.uniform(0.5, 1.5)
            delay = backoff if result.seconds is None else max(result.seconds, 0.01 * backoff)
            if number + 1 < tries and delay <= LONGEST_WAIT:
                self.wait(name, delay)
                continue
            asks = f", and asks to wait {result.seconds:.0f} s" if result.seconds and delay > LONGEST_WAIT else ""
            kind = TransientError if result.throttled else Unavailable
            raise kind(f"{name}: {result.message}{asks}; tried {counted(number + 1, 'time')}")
        raise AssertionError("at least one try")

    def wait(self, name: str, seconds: float) -> None:
        """Raises TransientError when who reads has stopped."""
        if self.stopped.wait(seconds):
            raise TransientError(f"{name}: stopped")
