"""Who makes which vectors now: nobody makes again what another is at.

Two threads of a process take turns by ``Claims``. What costs money is claimed in the database too, where workers on every
machine see it. There a claim lives as long as the session that made it: PostgreSQL ends the session of a process that was
killed, and with it the advisory lock by which others know that its claims hold.

Nothing is claimed while what others have claimed is waited for; so no two wait for each other.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection

POLL = 0.2
"""Seconds between two looks at whether another process has done with what it claimed."""


class Claims:
    """Of the threads of one run in this process."""

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


@contextmanager
def in_database(connection: Connection, space: str, keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yields those of ``keys`` that are this session's to buy while the body runs: neither claimed by another one that
    lives, nor kept by now. ``connection`` must not be in a transaction."""
    claimed: list[bytes] = []
    try:
        with pace.turn(connection) as turn:
            for part in turn.cut(len(keys)):
                rows = connection.execute(
                    "SELECT * FROM vecferry.claim_contents(%s, %b::bytea[])", (space, keys[part]), binary=True
                )
                claimed += [content for (content,) in rows]
        yield claimed
    finally:
        if not connection.closed:
            connection.execute("SELECT vecferry.release_contents()")
