"""Who is buying what: two threads with the same text must not both embed it, and neither waits for the other's rest."""

import threading
from collections.abc import Generator

_held: set[tuple[str, bytes]] = set()
_freed = threading.Condition()


def in_turn(space: str, keys: list[bytes]) -> Generator[list[bytes]]:
    """Yields all of ``keys``, in parts: those that nobody else has now, then those that others had. What is yielded is
    held until the next part is asked for or the iteration is closed; nothing is held while others are waited for."""
    while keys:
        with _freed:
            while not (mine := [key for key in keys if (space, key) not in _held]):
                _freed.wait()
            _held.update((space, key) for key in mine)
        try:
            yield mine
        finally:
            with _freed:
                _held.difference_update((space, key) for key in mine)
                _freed.notify_all()
        taken = set(mine)
        keys = [key for key in keys if key not in taken]
