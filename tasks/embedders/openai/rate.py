"""How much of an account's limits is taken, as its processes share it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from tasks.base import stored
from tasks.embedders.openai.limits import Bucket, reported

SLICE = 0.25
"""Seconds between two looks of a waiting thread, at whether to stop and at what others have left."""
AHEAD = 0.25
"""Seconds whose refill of a limit one process may take ahead."""
LEASE = 90.0
"""Seconds after which a request is not thought to be under way any more: its process was killed."""
ALONE = 10.0
"""Seconds for which the first request of an account is waited for; most are answered within one."""


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

    def ahead(self, now: float, cost: float, most: float) -> list[Ticket]:
        """Tickets of requests that are not there yet: at most what comes back within AHEAD, and none that anybody waits for."""
        most = min(most, self.requests.amount(AHEAD), self.tokens.amount(AHEAD) / max(cost, 1.0))
        tickets: list[Ticket] = []
        while self.answered and not self.line and len(tickets) < most - 1:
            if self.requests.wait(now, 1) > 0 or self.tokens.wait(now, cost) > 0:
                break
            tickets.append(self._send(now, cost))
        return tickets

    def give_back(self, now: float, ticket: Ticket) -> None:
        """Of a request that is not sent after all."""
        for bucket, cost in ((self.requests, 1.0), (self.tokens, ticket.tokens)):
            bucket.advance(now)
            bucket.settle(cost, 0.0)
        self._land(str(int(ticket.sent[0])))

    def settle(
        self, now: float, ticket: Ticket, actual: float | None, headers: Mapping[str, str], behind: float = 0.0
    ) -> None:
        """Counts an answer, which came at ``now``, or by so many seconds later that this is ``behind``."""
        for bucket in (self.requests, self.tokens):
            bucket.advance(now)
        self._land(str(int(ticket.sent[0])))
        self.tokens.settle(ticket.tokens, ticket.tokens if actual is None else actual)
        for place, (bucket, kind) in enumerate(((self.requests, "requests"), (self.tokens, "tokens"))):
            if report := reported(headers, kind):
                bucket.believe(now + max(0.0, behind), report, ticket.sent[place], ticket.flying[place])
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

    def unknown(self, now: float) -> bool:
        """Whether the limits are not known yet, and will be when the request under way is answered: so it goes alone. The next
        goes after a while, since the process of the first may have been killed."""
        return not self.answered and any(now < until - LEASE + ALONE for _, until in self.flying.values())

    def _wait(self, now: float, requests: float, tokens: float) -> float:
        if now < self.paused_until:
            return self.paused_until - now
        if self.unknown(now):
            return 0.02
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
