"""The rate limits of an account, and what is left of them.

The server says with every answer how many requests and tokens a minute it allows, how many are left and when they will be
back (OpenAI, "Rate limits": ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``). Between answers a bucket for each
is counted here, so that what is sent never exceeds what is there, and little of what is there stays unused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Reported:
    """What one answer says of one limit."""

    limit: float
    remaining: float
    reset: float | None
    """Seconds until all of the limit is there again."""


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


@dataclass
class Bucket:
    """What is left of one limit: refilled steadily, or all at once where the server counts in fixed windows."""

    limit: float | None = None
    """A minute, or a day; None before the server has said."""
    burst: float | None = None
    """What may be taken at once; None where nothing is known of it."""
    sent: float = 0.0
    flying: float = 0.0
    level: float = 0.0
    at: float = 0.0
    """When the level was that, in seconds of the limiter's clock."""
    rate: float = 0.0
    share: float = 1.0
    full_at: float | None = None
    steady_answers: int = _PROOF

    @property
    def most(self) -> float:
        """What can be there at once."""
        assert self.limit is not None
        return self.limit if self.burst is None else min(self.limit, self.burst)

    def advance(self, now: float) -> None:
        if self.limit is None:
            return
        if self.full_at is None:
            self.level += self.rate * self.share * max(0.0, now - self.at)
        elif now >= self.full_at:
            # What is under way may be counted in the new window. Its length is not known before the next answer.
            self.level, self.full_at = self.limit - self.flying, now + _PERIODS[0]
        self.level, self.at = min(self.level, self.most), max(now, self.at)

    def wait(self, now: float, cost: float) -> float:
        """Seconds until ``cost`` is there. More than the whole limit can only wait for the whole limit."""
        if self.limit is None:
            return 0.0
        lacking = min(cost, self.most) - self.level
        if lacking <= 1e-9:
            return 0.0
        return self.full_at - now if self.full_at is not None else lacking / (self.rate * self.share)

    def send(self, cost: float) -> None:
        self.level -= cost
        self.sent += cost
        self.flying += cost

    def settle(self, cost: float, actual: float) -> None:
        self.level += cost - actual

    def believe(self, now: float, report: Reported, sent: float, flying: float) -> None:
        """Corrects the count by an answer. What was sent after the request, or was under way with it, may or may not be
        in the server's figure: so the truth lies between that figure less all of this, and that figure. ``now`` is when the
        answer came, at the latest: what comes back before it is in the figure already, and what comes back from then to when
        the level was counted is not."""
        uncounted = self.sent - sent + flying
        back = self.rate * self.share * (self.at - now) if self.full_at is None else 0.0
        remaining = report.remaining + back
        if self.limit is None:
            self.level, self.at = remaining - uncounted, max(self.at, now)
        else:
            self.level = min(max(self.level, remaining - uncounted), remaining + _FRACTION)
        self.limit = report.limit
        self.rate, self.full_at = report.limit / _PERIODS[0], None
        self.share = min(1.0, self.share + _REGAIN)
        if report.reset is None:
            return
        fits = [
            _steadily(report, _PERIODS[0], hidden=_PERIODS[0] / report.limit),
            _steadily(report, _PERIODS[1], hidden=0.0),  # most of a day for one of few: any answer would do
        ]
        # A window that was emptied at its start looks for a moment like a steady refill: one answer proves little.
        self.steady_answers = self.steady_answers + 1 if any(fits) else 0
        if self.steady_answers < _PROOF:
            self.full_at = now + min(report.reset, _PERIODS[0])
        elif any(fits):
            self.rate = report.limit / _PERIODS[fits.index(True)]

    def amount(self, span: float) -> float:
        """How much comes back in ``span`` seconds; infinity where nothing is known of a limit."""
        return float("inf") if self.limit is None else self.rate * self.share * span

    def refuse_burst(self) -> None:
        """After a 429 although enough was left: the server counts over less than a minute too."""
        if self.limit is not None:
            self.burst = max(self.most / 2, self.limit / 60, 1.0)

    def refuse_share(self) -> None:
        """After a 429 for want of this: others use the same key, so less than the whole refill is ours."""
        self.share = max(0.05, self.share * 0.8)
