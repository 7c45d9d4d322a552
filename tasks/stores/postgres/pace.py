"""Gives way: while others use the database, vecferry works in it one piece at a time, and rests between pieces so that it
is at work for a share of the time only.

A search that finds the server's processors taken waits until one is free, for as long as the piece of work lasts that
holds it. So pieces are short, and there is never more than one: a reader's 99th percentile is made of such waits.

A rest is for what a piece took from others. Its time on the clock has more in it: what the piece itself waited, for a processor,
here or at the server, or for a lock. No server tells the one from the other; but pieces that follow each other are alike, and now
and then one of them has not to wait.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from psycopg.pq import TransactionStatus

from tasks.base.words import counted
from tasks.stores.interface import AT_ONCE, Turn
from tasks.stores.postgres.connection import Connection, connect

MOMENT = 0.0005
"""Seconds of work below which there is no rest: sleeping has a cost of its own."""
SHORT = 100
"""Rows a statement where way is given: about a millisecond of work."""
LONGEST = 5.0
"""Seconds that a rest lasts at most: what took longer than a second was mostly waiting."""
ALIKE = 50
"""Pieces in a row, of which the quickest tells what one takes that has not to wait."""
UNEVEN = 2.0
"""How much more than the quickest a piece may take by itself: ten rows with an HNSW index are uneven by about that."""
LOOK = 1.0
"""Seconds between two looks at who else is there."""

_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
      AND coalesce(application_name, '') NOT LIKE 'vecferry%'
      AND coalesce(backend_type, 'client backend') = 'client backend'
      AND (state_change IS NULL OR state = 'active' OR state_change > clock_timestamp() - interval '2 s')
"""
"""Sessions of others that did something in the last seconds. Of other roles' sessions a role without pg_read_all_stats
sees only that they are there: those count as at work."""

logger = logging.getLogger("vecferry")


@dataclass
class Pace:
    """Of this process in one database."""

    share: float
    one: threading.RLock = field(default_factory=threading.RLock)
    """Held by who works in the database, and while they rest."""
    others: int = 0
    looked: float = float("-inf")
    rested: float = 0.0


_paces: dict[tuple[str, int, str], Pace] = {}
"""By host, port and name of the database: process-wide, because all that this process does in a database, of whichever run,
is one user of it, and what reads or writes a table has a connection and no run."""


@dataclass
class PacedTurn(Turn):
    """One piece of work where way is given."""

    gives_way: ClassVar[bool] = True
    pace: Pace
    lately: deque[float] = field(default_factory=lambda: deque(maxlen=ALIKE))
    """Seconds that the last pieces took, which are alike."""
    began: float = field(default_factory=time.perf_counter)

    def cut(self, rows: int) -> Iterable[slice]:
        self.lately.clear()  # what came before was other work
        for start in range(0, rows, SHORT):
            yield slice(start, start + SHORT)
            self.rest()

    def rest(self) -> None:
        if (worked := time.perf_counter() - self.began) < MOMENT:
            return
        self.lately.append(worked)
        taken = min(worked, UNEVEN * min(self.lately))
        resting = min(taken * (1 / self.pace.share - 1), LONGEST)
        self.pace.rested += resting
        time.sleep(resting)
        self.began = time.perf_counter()


@contextmanager
def giving_way(url: str, share: float) -> Iterator[Pace]:
    """While the body runs, work in that database takes at most ``share`` (0 to 1] of the time when others use it."""
    with connect(url, "vecferry") as connection:
        place = _place(connection)
    _paces[place] = Pace(share)
    try:
        yield _paces[place]
    finally:
        _paces.pop(place, None)


@contextmanager
def turns(connection: Connection) -> Iterator[Callable[[], AbstractContextManager[Turn]]]:
    """Yields what each piece of work of the body is done in, one after the other; a rest comes after each. Who else is
    there is looked at now, since nothing can be asked while a COPY goes on."""
    pace = _paces.get(_place(connection))
    if pace is None or pace.share >= 1 or not _others(pace, connection):
        yield _at_once
        return
    connection.execute("SET max_parallel_workers_per_gather = 0")  # a statement is one piece, not three
    lately = deque[float](maxlen=ALIKE)
    try:
        yield lambda: _one(PacedTurn(pace, lately))
    finally:
        if connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            connection.execute("RESET max_parallel_workers_per_gather")


@contextmanager
def turn(connection: Connection) -> Iterator[Turn]:
    """One piece of work in the database. Where way is given, no other piece goes on beside it and a rest comes after it."""
    with turns(connection) as take, take() as turn:
        yield turn


def others(connection: Connection) -> int:
    """Sessions that way is given to in this database, by the last look."""
    pace = _paces.get(_place(connection))
    return pace.others if pace and pace.share < 1 else 0


def rested(connection: Connection) -> float:
    """Seconds that were rested so far."""
    pace = _paces.get(_place(connection))
    return pace.rested if pace else 0.0


@contextmanager
def _one(turn: PacedTurn) -> Iterator[Turn]:
    with turn.pace.one:
        turn.began = time.perf_counter()  # not when it began to wait for the one before
        yield turn
        turn.rest()


@contextmanager
def _at_once() -> Iterator[Turn]:
    yield AT_ONCE


def _others(pace: Pace, connection: Connection) -> int:
    if time.monotonic() > pace.looked + LOOK:
        before, row = pace.others, connection.execute(_OTHERS).fetchone()
        assert row
        pace.others, pace.looked = row[0], time.monotonic()
        if bool(pace.others) != bool(before):
            logger.info("%s the database", counted(pace.others, "other session", "use"))
    return pace.others


def _place(connection: Connection) -> tuple[str, int, str]:
    return connection.info.host, connection.info.port, connection.info.dbname
