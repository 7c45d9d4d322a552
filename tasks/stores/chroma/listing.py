"""Listing what a server gives only page by page, while others write to it, and without trusting it to say where it ends."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tasks.base.errors import FatalError

ROUNDS = 3
SLACK = 1_000
_LIMIT = re.compile(r"limit of (\d+)")


class TooMuch(Exception):
    """A server refuses as many records at once as were asked for; its message may say how many it allows."""


@dataclass
class Most:
    """How many records a server gives at once, as far as is known. One a server, for all threads."""

    rows: int

    def lower(self, tried: int, refusal: TooMuch) -> bool:
        """Takes note that ``tried`` are too many; whether fewer are to be tried."""
        allowed = _LIMIT.search(str(refusal))
        fewer = int(allowed[1]) if allowed and 0 < int(allowed[1]) < tried else tried // 2
        self.rows = max(1, min(self.rows, fewer))
        return tried > 1


def listed(ask: Callable[[int, int], list[str]], count: Callable[[], int], most: Most, what: str) -> list[str]:
    """Every name that ``ask(limit, offset)`` gives, once each. Raises FatalError where those are fewer than ``count()``,
    and writes do not explain it."""
    names: dict[str, None] = {}
    at = 0
    for _ in range(ROUNDS):
        before = count()
        at = _extend(ask, names, at, most, before)
        after = count()
        if len(names) >= min(before, after):
            return list(names)
        at = 0
    raise FatalError(
        f"{what}: only {len(names):,} of {after:,} could be listed, so none are migrated: something "
        "between here and the server may limit its answers"
    )


def _extend(ask: Callable[[int, int], list[str]], names: dict[str, None], at: int, most: Most, count: int) -> int:
    """Adds the names from offset ``at`` on to ``names``; returns the offset of the end.

    A page begins with the last name of the page before. Where it does not, what was deleted meanwhile has drawn names
    from behind the offset to before it, and the listing steps back to one that is known. A page shorter than what was
    asked for is no end: an end is a page with nothing behind its first name.
    """
    while at <= 2 * count + SLACK:  # a server that knows no offset would never end
        limit = most.rows
        start = at - 1 if at and limit > 1 else at
        try:
            page = ask(limit, start)
        except TooMuch as refusal:
            if not most.lower(limit, refusal):
                raise FatalError(str(refusal)) from refusal
            continue
        if start < at and (not page or page[0] not in names):
            at = max(0, at - limit)
            continue
        names.update(dict.fromkeys(page))
        if len(page) <= at - start:
            break
        at = start + len(page)
    return at
