"""Keeps an account under its limits: all threads of a process that use the same key and model, and all processes where their
``Rates`` are kept together.

How much is taken is one small state. A change of it is computed here, on the state as it is when it is written; so threads
and processes take their turns by the same few lines.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import orjson

from tasks.base import stored
from tasks.base.errors import VecferryError
from tasks.embedders.interface import Allowed, Rates
from tasks.embedders.openai.limits import MAX_INPUTS, MAX_TOKENS, Bucket, reported

SLICE = 0.25
"""Seconds between two looks of a waiting thread, at whether to stop and at what others have left."""
LEASE = 90.0
"""Seconds after which a request is not thought to be under way any more: its process was killed."""
IDLE = 120.0
"""Seconds after which nothing is known of an account that nobody has used: every limit is there again."""

T = TypeVar("T")
logger = logging.getLogger("vecferry")


@dataclass(frozen=True)
class Ticket:
    """One request under way."""

    tokens: float
    sent: tuple[float, float]
    """Requests and tokens sent up to and with this one."""
    flying: tuple[float, float]
    """Requests and tokens of others that were under way when it was sent."""


@dataclass
class Rate:
    """How much of an account's limits is taken, as its processes share it."""

    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    answered: bool = False
    requests_scarce: bool = False
    paused_until: float = 0.0
    flying: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Requests under way, by their number: tokens, and until when that is believed."""
    line: tuple[tuple[str, float, float], ...] = ()
    """Who waits, the first to come first, for how many tokens, and until when that holds unless it is said anew. What those
    ahead wait for is left to them, lest a large request be overtaken for ever."""
    touched: float = 0.0

    @classmethod
    def from_json(cls, data: bytes) -> "Rate":
        values = orjson.loads(data)
        buckets = {name: stored.read(Bucket, values.pop(name)) for name in ("requests", "tokens")}
        return stored.read(cls, values | buckets | {"line": tuple(map(tuple, values["line"]))})

    def take(self, now: float, cost: float, who: str) -> tuple[Ticket | None, float]:
        """The ticket of a request of ``cost`` tokens, or None and the seconds until there may be one."""
        self._expire(now)
        names = [name for name, *_ in self.line]
        place = names.index(who) if who in names else len(names)
        wait = self._wait(now, 1 + place, cost + sum(tokens for _, tokens, _ in self.line[:place]))
        if wait <= 0:
            self.line = tuple(one for one in self.line if one[0] != who)
            return self._send(now, cost), 0.0
        if place == len(names) or self.line[place][2] < now + 2 * SLICE:
            self.line = (*self.line[:place], (who, cost, now + 4 * SLICE), *self.line[place + 1 :])
        return None, wait

    def settle(self, now: float, ticket: Ticket, actual: float | None, headers: Mapping[str, str]) -> None:
        """Counts an answer."""
        for bucket in (self.requests, self.tokens):
            bucket.advance(now)
        self._land(str(int(ticket.sent[0])))
        self.tokens.settle(ticket.tokens, ticket.tokens if actual is None else actual)
        for place, (bucket, kind) in enumerate(((self.requests, "requests"), (self.tokens, "tokens"))):
            if report := reported(headers, kind):
                bucket.believe(now, report, ticket.sent[place], ticket.flying[place])
        self.answered = self.answered or actual is not None

    def refuse(self, now: float, ticket: Ticket, delay: float, headers: Mapping[str, str]) -> None:
        """Counts a 429."""
        self.paused_until = max(self.paused_until, now + delay)
        costs = ((self.requests, "requests", 1.0), (self.tokens, "tokens", ticket.tokens))
        reports = [(bucket, cost, report) for bucket, kind, cost in costs if (report := reported(headers, kind))]
        lacking = [bucket for bucket, cost, report in reports if report.remaining < cost]
        for bucket in lacking:
            bucket.refuse_share()
        for bucket in () if lacking else [bucket for bucket, _, _ in reports]:
            bucket.refuse_burst()

    def _wait(self, now: float, requests: float, tokens: float) -> float:
        if now < self.paused_until:
            return self.paused_until - now
        if not self.answered and self.flying:
            return 0.02  # the limits are not known before the first answer, so the first request goes alone
        self.requests.advance(now)
        self.tokens.advance(now)
        by_requests, by_tokens = self.requests.wait(now, requests), self.tokens.wait(now, tokens)
        if max(by_requests, by_tokens) > 0:
            self.requests_scarce = by_requests >= by_tokens
        return max(by_requests, by_tokens)

    def _send(self, now: float, cost: float) -> Ticket:
        flying = (self.requests.flying, self.tokens.flying)
        self.requests.send(1)
        self.tokens.send(cost)
        self.flying[str(int(self.requests.sent))] = (cost, now + LEASE)
        return Ticket(cost, (self.requests.sent, self.tokens.sent), flying)

    def _land(self, number: str) -> None:
        if number in self.flying:
            self.requests.flying -= 1
            self.tokens.flying -= self.flying.pop(number)[0]

    def _expire(self, now: float) -> None:
        for number in [number for number, (_, until) in self.flying.items() if until < now]:
            self._land(number)
        self.line = tuple(one for one in self.line if one[2] > now)


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
            while True:
                stop()
                ticket, wait = self._change(lambda rate, now: rate.take(now, tokens(), self._who))
                if ticket:
                    return ticket
                self._sleep(min(wait, SLICE))

    def settle(self, ticket: Ticket, actual: float | None, headers: Mapping[str, str]) -> None:
        """Counts an answer: ``actual`` tokens, None where the server did not say (what was asked for then stands)."""
        try:
            self._change(lambda rate, now: rate.settle(now, ticket, actual, headers))
        except VecferryError as error:  # the answer is paid for; that it has come is known to the others in a while
            logger.warning("an answer was not counted for the rate that processes share: %s", error)

    def refused(self, ticket: Ticket, delay: float, headers: Mapping[str, str]) -> None:
        """A 429: nothing is sent for ``delay`` seconds."""
        self._change(lambda rate, now: rate.refuse(now, ticket, delay, headers))

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

    def _change(self, step: Callable[[Rate, float], T]) -> T:
        with self._lock:
            rates = self._rates
            if rates is None:
                return step(self._seen, self._clock())

            def changed(kept: bytes | None, told: float) -> tuple[bytes | None, T]:
                self._ahead = max(self._ahead, told - self._clock())
                now = self._clock() + self._ahead
                rate = Rate.from_json(kept) if kept else Rate()
                if max(rate.touched + IDLE, rate.paused_until) < now:
                    rate = Rate()
                marks = rate.line, rate.requests.sent
                result = step(rate, now)
                self._seen = rate
                if isinstance(result, tuple) and marks == (rate.line, rate.requests.sent):
                    return None, result  # it waits: the next look comes to the same
                rate.touched = now
                return orjson.dumps(asdict(rate)), result

            return rates.change(self._account, changed)
