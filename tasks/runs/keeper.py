"""Whoever keeps vectors: a run, or a client that has none."""

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from tasks.embedders.interface import Space
from tasks.stores.interface import Turn
from tasks.stores.postgres.connection import Connection


@dataclass(frozen=True)
class Recovered:
    """The spaces of which a process has indexed what others had written, and were ended before they had indexed it. Threads share it."""

    spaces: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by who looks."""

    def forget(self, space: Space) -> None:
        """Has it looked at once more: somebody was ended since."""
        with self.lock:
            self.spaces.discard(space.fingerprint)


class Keeper(Protocol):
    """As tasks/runs/vectors.py asks it."""

    @property
    def home(self) -> str:
        """The VECFERRY_HOME that the segments lie in."""
        ...

    @property
    def recovered(self) -> Recovered:
        """Its own in this process."""
        ...

    def turn(self, connection: Connection) -> AbstractContextManager[Turn]:
        """One piece of work in the database of the index."""
        ...
