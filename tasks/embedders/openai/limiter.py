"""Lets requests go when an account's limits allow it: those of all threads of a process that use the same key and model, and of
all processes where their ``Rates`` are kept together.

How much is taken is one small state. A change of it is computed on the state as it is when it is written; so threads and
processes take their turns by the same few lines. A change of what processes share costs a round trip: so some requests are
taken ahead, and answers are told with the next request that is taken.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TypeVar

import orjson

from tasks.embedders.interface import Allowed, Rates
from tasks.embedders.openai.limits import MAX_INPUTS, MAX_TOKENS
from tasks.embedders.openai.rate import AHEAD, ALONE, SLICE, Rate, Ticket

MOST_AHEAD = 8
"""Requests that are taken at once."""
SPACIOUS = 1.1
"""How much larger than the last request the next ones are thought to be at most; what they do not need comes back."""
FRESH = 1.0
"""Seconds after which what was taken ahead is given back."""
SILENT = 3.0
"""Seconds of waiting for others before it is told."""
IDLE = 120.0
"""Seconds after which nothing is known of an account that nobody has used: every limit is there again."""

T = TypeVar("T")
logger = logging.getLogger("vecferry")


class Limiter:
    """Lets a request go when the limits of ``account`` allow it. ``clock`` and ``sleep`` are in seconds. Without ``rates`` the
    account is this process's alone."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        account: str = "",
        rates: Rates | None = None,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._account, self._rates = account, rates
        self._who = uuid.uuid4().hex
        self._lock = threading.RLock()
        self._turn = threading.Lock()
        self._ahead = float("-inf")
        """Of this clock is the one that is the same for all; what it says comes late, never early."""
        self._most_ahead = float("inf")
        """And no more than this."""
        self._late: list[Callable[[Rate], None]] = []
        """What the others have not been told yet."""
        self._spare: list[Ticket] = []
        """Taken ahead, at ``_taken`` of this clock."""
        self._taken = float("-inf")
        self._seen = Rate()
        """The state, and where it is kept elsewhere what it was at the last look."""

    @property
    def allowed(self) -> Allowed:
        """The limits a minute, as the last answers told them."""
        return Allowed(self._seen.requests.limit, self._seen.tokens.limit)

    def acquire(self, tokens: Callable[[], float], stop: Callable[[], None] = lambda: None) -> Ticket:
        """Waits until a request of ``tokens`` may be sent. ``stop`` raises when nothing may be sent any more.

        Requests go in the order in which they came, so that a large one is not overtaken for ever.
        """
        with self._turn:
            began, told = self._clock(), False
            while True:
                stop()
                cost = tokens()
                ticket, wait = self._spared(cost), 0.0
                if not ticket:
                    ticket, wait = self._take(cost)
                if ticket:
                    return ticket
                if not told and self._clock() - began > SILENT and self._seen.unknown(self._now()):
                    told = True
                    logger.warning(
                        "waiting for the answer to the first request to this account, which states its limits; after %.0f s "
                        "without it another request is sent",
                        ALONE,
                    )
                self._sleep(min(wait, SLICE))

    def settle(self, ticket: Ticket, actual: float | None, headers: Mapping[str, str]) -> None:
        """Counts an answer: ``actual`` tokens, None where the server did not say (what was asked for then stands). The others
        are told of it with the next request, unless they wait for it."""
        with self._lock:
            known = self._seen.answered
            behind = self._most_ahead - self._ahead if self._rates else 0.0
            self._late.append(
                partial(Rate.settle, now=self._now(), ticket=ticket, actual=actual, headers=headers, behind=behind)
            )
        if self._rates and known:
            return
        try:
            self._change(lambda rate, now: (True, None))
        except Exception as error:  # noqa: BLE001  the answer is paid for: that nobody is told now must not lose it
            logger.warning("an answer was not counted yet for the rate that processes share: %s", error)

    def refused(self, ticket: Ticket, delay: float, headers: Mapping[str, str]) -> None:
        """A 429: nothing is sent for ``delay`` seconds."""
        self._give_back()

        def refuse(rate: Rate, now: float) -> tuple[bool, None]:
            rate.refuse(now, ticket, delay, headers)
            return True, None

        self._change(refuse)

    def caps(self, waiting: int, width: int) -> tuple[int, float]:
        """Inputs and tokens of the next request, when ``waiting`` texts are left for ``width`` requests at a time.

        Small enough that all of ``width`` have work and an eighth of a minute's tokens is not passed at once; as large
        as can be where requests are what is short.
        """
        seen = self._seen
        most, requests, tokens = float(MAX_TOKENS), seen.requests.limit, seen.tokens.limit
        if tokens is not None:
            share = max(tokens / 8, 1.25 * tokens / requests if requests else 0.0)
            most = min(most, share, seen.tokens.most)
        return (MAX_INPUTS if seen.requests_scarce else min(MAX_INPUTS, max(256, -(-waiting // width)))), most

    def _take(self, cost: float) -> tuple[Ticket | None, float]:
        """One request's ticket, and while many are wanted those of the next ones; or None and the seconds until there is one."""
        self._give_back()
        clock = self._clock()
        most = MOST_AHEAD if self._rates and clock - self._taken < AHEAD else 1

        def step(rate: Rate, now: float) -> tuple[bool, tuple[Ticket | None, float, list[Ticket]]]:
            line = rate.line
            ticket, wait = rate.take(now, cost, self._who)
            # Where it waits in line already, the next look comes to the same.
            return ticket is not None or rate.line != line, (
                ticket,
                wait,
                rate.ahead(now, SPACIOUS * cost, most) if ticket else [],
            )

        ticket, wait, ahead = self._change(step)
        if ticket:
            with self._lock:
                self._taken, self._spare = clock, ahead
        return ticket, wait

    def _spared(self, cost: float) -> Ticket | None:
        """One that was taken ahead for as much, while nobody was refused since."""
        with self._lock:
            usable = self._clock() - self._taken < FRESH and self._seen.paused_until <= self._now()
            if usable and self._spare and self._spare[0].tokens >= cost:
                return self._spare.pop(0)
            return None

    def _give_back(self) -> None:
        with self._lock:
            self._late += [partial(Rate.give_back, now=self._now(), ticket=ticket) for ticket in self._spare]
            self._spare = []

    def _now(self) -> float:
        return self._clock() + (self._ahead if self._rates else 0.0)

    def _change(self, step: Callable[[Rate, float], tuple[bool, T]]) -> T:
        """Does what ``step`` does to the state as it is now. It says whether it changed anything, and what comes of it."""
        rates = self._rates
        with self._lock:
            late, self._late = self._late, []
            if rates is None:
                for tell in late:
                    tell(self._seen)
                return step(self._seen, self._clock())[1]

        def changed(kept: bytes | None, told: float, behind: float) -> tuple[bytes | None, T]:
            ahead = told - self._clock()
            self._ahead, self._most_ahead = max(self._ahead, ahead), min(self._most_ahead, ahead + behind)
            now = self._now()
            rate = Rate.from_json(kept) if kept else Rate()
            if forgotten := max(rate.touched + IDLE, rate.paused_until) < now:
                rate = Rate()
            for tell in () if forgotten else late:
                tell(rate)
            written, result = step(rate, now)
            self._seen = rate
            if not (written or late):
                return None, result
            rate.touched = now
            return orjson.dumps(asdict(rate)), result

        try:
            return rates.change(self._account, changed)
        except BaseException:
            with self._lock:
                self._late = late + self._late
            raise
