"""How a stage tells how far it is."""

from collections.abc import Callable

Tell = Callable[[float], None]
"""Takes the share that is done, from 0 to 1, from any thread."""


def quiet(share: float) -> None:
    """Tells nobody."""


def part(tell: Tell, number: int, total: int) -> Tell:
    """What one of ``total`` equal parts of a stage tells its own share to."""
    return lambda share: tell((number + share) / total)
