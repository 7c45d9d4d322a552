"""Who makes which vectors now: nobody makes again what another is at.

Nothing is claimed while what others have claimed is waited for; so no two wait for each other.
"""

import threading
from collections.abc import Generator, Sequence

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
