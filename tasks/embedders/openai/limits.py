"""Keeps an account under its rate limits: one limiter for all threads of a process that use the same key and model.

The server says with every answer how many requests and tokens a minute it allows, how many are left and when they will be
back (OpenAI, "Rate limits": ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``). Between answers a bucket for each
is counted here, so that what is sent never exceeds what is there, and little of what is there stays unused.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from tasks.embedders.interface import Allowed

MAX_INPUTS = 2048
MAX_TOKENS = 300_000
"""OpenAI's API reference, "Create embeddings": inputs a request, tokens a request."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PERIODS = (60.0, 86400.0)  # OpenAI's limits are by the minute and, in the free tier, by the day
_PROOF = 100  # answers in a row that fit a steady refill, after one that did not, until it is believed
_REGAIN = 0.002  # of the refill, at each answer, after others have taken some of it
_FRACTION = 0.999  # what a whole number in a header may leave unsaid: of a few requests a minute that is a lot
_SLICE = 0.25  # a waiting thread looks this often whether to stop


@dataclass(frozen=True)
class Reported:
    """What one answer says of one limit."""

    limit: float
    remaining: float
    reset: float | None
    """Seconds until all of the limit is there again."""


@dataclass(frozen=True)
class Ticket:
    """One request under way."""

    tokens: float
    sent: tuple[float, float]
    """Requests and tokens sent up to and with this one."""
    flying: tuple[float, float]
    """Requests and tokens of others that were under way when it was sent."""


def reported(headers: Mapping[str, str], kind: str) -> Reported | None:
    """What the headers say of ``kind``, requests or tokens; None where they say nothing that can be read."""
    try:
        limit = float(headers[f"x-ratelimit-limit-{kind}"])
        remaining = float(headers[f"x-ratelimit-remaining-{kind}"])
    except (KeyError, ValueError):
        return None
    return Reported(limit, remaining, seconds(headers.get(f"x-ratelimit-reset-{kind}", ""))) if limit > 0 else None


def seconds(duration: str) -> float | None:
    """``6m0s``, ``20ms``, ``1.5`` in seconds; None for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", duration):
        return float(duration)
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after``, which is seconds or a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit
        if value and name == "retry-after":
            try:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except ValueError:
                return None
    return None


def _steadily(report: Reported, period: float, hidden: float) -> bool:
    """Whether the answer is that of a limit which comes back steadily over ``period``. The whole number that is left may
    hide almost one more, which comes back within ``hidden`` seconds."""
    assert report.reset is not None
    steady = (report.limit - report.remaining) * period / report.limit
    slack = max(1.0, 0.05 * steady)
    return -hidden - slack <= report.reset - steady <= slack


def least_seconds(allowed: Allowed, texts: int, tokens: int) -> float:
    """The least that so many texts take, in requests of MAX_INPUTS and MAX_TOKENS at most. A minute's worth is there at the
    start."""
    asked = max(-(-texts // MAX_INPUTS), -(-tokens // MAX_TOKENS))
    waits = [wanted / limit for wanted, limit in ((asked, allowed.requests), (tokens, allowed.tokens)) if limit]
    return 60 * max(0.0, max(waits, default=0.0) - 1)


class _Bucket:
    """What is left of one limit: refilled steadily, or all at once where the server counts in fixed windows."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.burst = float("inf")
        self.sent = self.flying = 0.0
        self._level = self._at = self._rate = 0.0
        self._share = 1.0
        self._full_at: float | None = None
        self._steady_answers = _PROOF

    def advance(self, now: float) -> None:
        if self.limit is None:
            return
        if self._full_at is None:
            self._level += self._rate * self._share * (now - self._at)
        elif now >= self._full_at:
            # What is under way may be counted in the new window. Its length is not known before the next answer.
            self._level, self._full_at = self.limit - self.flying, now + _PERIODS[0]
        self._level, self._at = min(self._level, self.limit, self.burst), now

    def wait(self, now: float, cost: float) -> float:
        """Seconds until ``cost`` is there. More than the whole limit can only wait for the whole limit."""
        if self.limit is None:
            return 0.0
        lacking = min(cost, self.limit, self.burst) - self._level
        if lacking <= 1e-9:
            return 0.0
        return self._full_at - now if self._full_at is not None else lacking / (self._rate * self._share)

    def send(self, cost: float) -> None:
        self._level -= cost
        self.sent += cost
        self.flying += cost

    def settle(self, cost: float, actual: float) -> None:
        self._level += cost - actual
        self.flying -= cost

    def believe(self, now: float, report: Reported, sent: float, flying: float) -> None:
        """Corrects the count by an answer. What was sent after the request, or was under way with it, may or may not be
        in the server's figure: so the truth lies between that figure less all of this, and that figure."""
        uncounted = self.sent - sent + flying
        if self.limit is None:
            self._level = report.remaining - uncounted
        else:
            self._level = min(max(self._level, report.remaining - uncounted), report.remaining + _FRACTION)
        self.limit, self._at = report.limit, now
        self._rate, self._full_at = report.limit / _PERIODS[0], None
        self._share = min(1.0, self._share + _REGAIN)
        if report.reset is None:
            return
        fits = [
            _steadily(report, _PERIODS[0], hidden=_PERIODS[0] / report.limit),
            _steadily(report, _PERIODS[1], hidden=0.0),  # most of a day for one of few: any answer would do
        ]
        # A window that was emptied at its start looks for a moment like a steady refill: one answer proves little.
        self._steady_answers = self._steady_answers + 1 if any(fits) else 0
        if self._steady_answers < _PROOF:
            self._full_at = now + min(report.reset, _PERIODS[0])
        elif any(fits):
            self._rate = report.limit / _PERIODS[fits.index(True)]

    def refuse_burst(self) -> None:
        """After a 429 although enough was left: the server counts over less than a minute too."""
        if self.limit is not None:
            self.burst = max(min(self.burst, self.limit) / 2, self.limit / 60, 1.0)

    def refuse_share(self) -> None:
        """After a 429 for want of this: others use the same key, so less than the whole refill is ours."""
        self._share = max(0.05, self._share * 0.8)


class Limiter:
    """Lets a request go when its limits allow it. ``clock`` and ``sleep`` are in seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._requests, self._tokens = _Bucket(), _Bucket()
        self._answered = False
        self._paused_until = float("-inf")
        self._requests_scarce = False

    @property
    def allowed(self) -> Allowed:
        """The limits a minute, as the last answers told them."""
        with self._lock:
            return Allowed(self._requests.limit, self._tokens.limit)

    def acquire(self, tokens: Callable[[], float], stop: Callable[[], None] = lambda: None) -> Ticket:
        """Waits until a request of ``tokens`` may be sent. ``stop`` raises when nothing may be sent any more.

        Requests go in the order in which they came, so that a large one is not overtaken for ever.
        """
        with self._turn:
            while True:
                stop()
                cost = tokens()
                with self._lock:
                    wait = self._wait(self._clock(), cost)
                    if wait <= 0:
                        return self._send(cost)
                self._sleep(min(wait, _SLICE))

    def settle(self, ticket: Ticket, actual: float | None, headers: Mapping[str, str]) -> None:
        """Counts an answer: ``actual`` tokens, None where the server did not say (what was asked for then stands)."""
        with self._lock:
            now = self._clock()
            for bucket in (self._requests, self._tokens):
                bucket.advance(now)
            self._requests.settle(1, 1)
            self._tokens.settle(ticket.tokens, ticket.tokens if actual is None else actual)
            for place, (bucket, kind) in enumerate(((self._requests, "requests"), (self._tokens, "tokens"))):
                if report := reported(headers, kind):
                    bucket.believe(now, report, ticket.sent[place], ticket.flying[place])
            self._answered = self._answered or actual is not None

    def refused(self, ticket: Ticket, delay: float, headers: Mapping[str, str]) -> None:
        """A 429: nothing is sent for ``delay`` seconds."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + delay)
            costs = ((self._requests, "requests", 1.0), (self._tokens, "tokens", ticket.tokens))
            reports = [(bucket, cost, report) for bucket, kind, cost in costs if (report := reported(headers, kind))]
            lacking = [bucket for bucket, cost, report in reports if report.remaining < cost]
            for bucket in lacking:
                bucket.refuse_share()
            for bucket in () if lacking else [bucket for bucket, _, _ in reports]:
                bucket.refuse_burst()

    def caps(self, waiting: int, width: int) -> tuple[int, float]:
        """Inputs and tokens of the next request, when ``waiting`` texts are left for ``width`` requests at a time.

        Small enough that all of ``width`` have work and an eighth of a minute's tokens is not passed at once; as large
        as can be where requests are what is short.
        """
        with self._lock:
            requests, tokens, burst = self._requests.limit, self._tokens.limit, self._tokens.burst
            scarce = self._requests_scarce
        most = float(MAX_TOKENS)
        if tokens is not None:
            share = max(tokens / 8, 1.25 * tokens / requests if requests else 0.0)
            most = min(most, share, tokens, burst)
        return (MAX_INPUTS if scarce else min(MAX_INPUTS, max(256, -(-waiting // width)))), most

    def _wait(self, now: float, cost: float) -> float:
        if now < self._paused_until:
            return self._paused_until - now
        if not self._answered and self._requests.flying:
            return 0.02  # the limits are not known before the first answer, so the first request goes alone
        self._requests.advance(now)
        self._tokens.advance(now)
        by_requests, by_tokens = self._requests.wait(now, 1), self._tokens.wait(now, cost)
        if max(by_requests, by_tokens) > 0:
            self._requests_scarce = by_requests >= by_tokens
        return max(by_requests, by_tokens)

    def _send(self, cost: float) -> Ticket:
        flying = (self._requests.flying, self._tokens.flying)
        self._requests.send(1)
        self._tokens.send(cost)
        return Ticket(cost, (self._requests.sent, self._tokens.sent), flying)
