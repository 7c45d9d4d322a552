"""The rate of an account, shared by processes: on clocks of their own, against the limits of the test server."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TypeVar

import orjson
import pytest

from tasks.embedders.openai.limiter import IDLE, Limiter
from tasks.embedders.openai.rate import SLICE, Rate
from tests.helpers.openai_server import Limit

T = TypeVar("T")


class Together:
    """Processes that share a rate, on a clock of its own; each sends requests of its size as fast as it is let."""

    def __init__(self, requests: float, tokens: float, sizes: Sequence[float]) -> None:
        self.now, self.latency, self.sizes, self.refused = 0.0, 1.0, sizes, 0
        self.rate, self.limits = Rate(), [Limit(limit, at=0.0) for limit in (requests, tokens)]
        self.sent: list[list[float]] = [[] for _ in sizes]
        self.late: list[list[Callable[[Rate], None]]] = [[] for _ in sizes]
        self.killed: int | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def until(self, end: float) -> None:
        while self._due and self._due[0][0] <= end:
            self.now, _, act = heapq.heappop(self._due)
            act()
        self.now = end

    def start(self, process: int) -> None:
        self._at(0.0, partial(self._try, process))

    def _at(self, delay: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (self.now + delay, self._number, act))

    def _try(self, process: int) -> None:
        if process == self.killed:
            return
        self.rate = Rate.from_json(orjson.dumps(asdict(self.rate)))  # as the next process reads it
        self._tell(process)
        ticket, wait = self.rate.take(self.now, self.sizes[process], str(process))
        if ticket is None:
            self._at(min(wait, SLICE), partial(self._try, process))
            return
        for limit in self.limits:
            limit.refill(self.now)
        actual = 0.99 * ticket.tokens  # what is asked for is the most that it may be
        within = self.limits[0].level >= 1 and self.limits[1].level >= actual
        if within:
            self.limits[0].level -= 1
            self.limits[1].level -= actual
            self.sent[process].append(self.now)
        self.refused += not within
        headers = self.limits[0].headers("requests", self.now) | self.limits[1].headers("tokens", self.now)

        def answer() -> None:
            told = partial(Rate.settle, now=self.now, ticket=ticket, actual=actual if within else None, headers=headers)
            self.late[process].append(told)
            if not self.rate.answered:
                self._tell(process)

        if process != self.killed:
            self._at(self.latency, answer)
        self._at(0.01, partial(self._try, process))

    def _tell(self, process: int) -> None:
        """As the process tells the others of its answers, with the next request that it takes."""
        for tell in self.late[process]:
            tell(self.rate)
        self.late[process] = []


@pytest.mark.parametrize(
    ("requests", "tokens", "sizes"),
    [
        (60, 10_000_000, (1000, 1000, 1000)),
        (3, 10_000_000, (1000, 1000)),
        (3000, 150_000, (1000, 1000, 1000)),
        (600, 1_000_000, (120_000, 1000, 1000)),  # a large request waits while small ones could pass it by
    ],
)
def test_processes_share_the_limits(requests: float, tokens: float, sizes: tuple[float, ...]) -> None:
    """Together they use at least 95 % of the tighter limit, without one 429, and each gets its turns."""
    together = Together(requests, tokens, sizes)
    for process in range(len(sizes)):
        together.start(process)
    together.until(300)
    assert together.refused == 0
    turns = [sum(at >= 60 for at in sent) for sent in together.sent]
    taken = sum(n * size for n, size in zip(turns, sizes, strict=True))
    assert max(sum(turns) / requests, taken / tokens) >= 0.95 * 4
    assert min(turns) >= 0.5 * max(turns)


def test_a_process_that_is_killed_leaves_the_rate_to_others() -> None:
    """What it had under way is not waited for: after a while nothing of it is counted."""
    together = Together(60, 100_000, (1000, 1000))
    together.start(0)
    together.until(30)
    lost = None
    while lost is None:
        together.until(together.now + SLICE)
        lost, _ = together.rate.take(together.now, 1000, "dead")
    together.killed = 0
    together.until(60)
    assert len(together.rate.flying) == 1
    together.killed = None
    together.start(1)
    together.until(660)
    assert together.refused == 0
    assert sum(60 <= at < 660 for at in together.sent[1]) >= 0.95 * 600
    number = str(int(lost.sent[0]))
    assert number not in together.rate.flying
    assert together.rate.requests.flying == len(together.rate.flying)


def test_an_answer_that_is_told_late_counts_from_when_it_came() -> None:
    """What came back since is there, whether the others were told at once or after they had taken more."""
    headers = {"x-ratelimit-limit-tokens": "60000", "x-ratelimit-remaining-tokens": "3000"}

    def level(told: float) -> float:
        rate = Rate()
        first, _ = rate.take(0.0, 1000, "one")
        assert first
        rate.settle(0.5, first, 1000, headers)
        ticket, _ = rate.take(0.5, 1000, "one")
        assert ticket
        if told == 1.0:
            rate.settle(1.0, ticket, 1000, headers)
        assert rate.take(2.0, 100, "other")[0]
        if told > 1.0:
            rate.settle(1.0, ticket, 1000, headers)
        assert rate.take(5.0, 0, "other")[0]
        return rate.tokens.level

    assert level(told=2.5) == pytest.approx(
        level(told=1.0), abs=101
    )  # less by the request that it may not have counted


def test_what_is_dated_by_a_clock_that_is_behind_comes_back_once() -> None:
    """A process that knows the time of all by a few tenths of a second says of an answer when it may have come at the latest."""
    rate, headers = Rate(), {"x-ratelimit-limit-requests": "1200", "x-ratelimit-remaining-requests": "0"}
    for came in (1.0, 2.0):
        ticket = rate._send(came, 1)
        rate.settle(came - 0.25, ticket, 1, headers, behind=0.25)
        rate.requests.advance(came + 0.1)
        assert rate.requests.level <= 2 + 1, "at 20 a second, and what a whole number in a header leaves unsaid"


class Kept:
    """Rates in memory, for limiters that take each other for processes."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.changes = 0

    def rate(self, account: str) -> Rate:
        return Rate.from_json(self.states[account])

    def change(self, account: str, step: Callable[[bytes | None, float, float], tuple[bytes | None, T]]) -> T:
        self.changes += 1
        state, result = step(self.states.get(account), 0.0, 0.0)
        if state is not None:
            self.states[account] = state
        return result


def test_what_one_process_is_told_holds_for_all() -> None:
    """A retry-after is waited for by the others too; who has not used an account for minutes begins anew."""
    clock, slept, rates = [0.0], [0.0][:0], Kept()

    def sleep(delay: float) -> None:
        slept.append(delay)
        clock[0] += delay

    one, other, another = (Limiter(lambda: clock[0], sleep, name, rates) for name in ("a", "a", "b"))
    headers = {"x-ratelimit-limit-tokens": "60000", "x-ratelimit-remaining-tokens": "59000"}
    first = one.acquire(lambda: 1000)
    one.settle(first, 1000, headers)
    one.refused(one.acquire(lambda: 1000), 20.0, {})
    another.acquire(lambda: 1000)
    assert slept == []
    other.acquire(lambda: 1000)
    assert sum(slept) == pytest.approx(20.0)
    assert other.allowed.tokens == 60_000
    clock[0] += 2 * IDLE
    other.acquire(lambda: 1000)
    assert other.allowed.tokens is None


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, delay: float) -> None:
        self.now += delay
        self.slept += delay


HEADERS = {"x-ratelimit-limit-requests": "6000", "x-ratelimit-remaining-requests": "5999"}


def test_most_requests_ask_nobody() -> None:
    """While many are wanted, a few are taken together, and their answers are told together; those that are not sent after
    all are given back."""
    clock, rates = Clock(), Kept()
    limiter = Limiter(clock, clock.sleep, "a", rates)
    limiter.settle(limiter.acquire(lambda: 1000), 1000, HEADERS)
    before = rates.changes
    for _ in range(80):
        limiter.settle(limiter.acquire(lambda: 1000), 1000, {})
        clock.now += 0.01
    assert rates.changes - before <= 80 / 8 + 1
    clock.now += 5
    limiter.acquire(lambda: 1000)
    assert rates.rate("a").requests.flying == 1
    assert rates.rate("a").requests.level == 5999


def test_what_was_taken_ahead_is_not_sent_after_a_refusal() -> None:
    """A retry-after holds for it too."""
    clock, rates = Clock(), Kept()
    limiter = Limiter(clock, clock.sleep, "a", rates)
    limiter.settle(limiter.acquire(lambda: 1000), 1000, HEADERS)
    refused = limiter.acquire(lambda: 1000)
    assert len(rates.rate("a").flying) > 1
    limiter.refused(refused, 20.0, {})
    limiter.acquire(lambda: 1000)
    assert clock.slept == pytest.approx(20.0)


def test_an_account_whose_first_request_was_lost_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its process was killed: the others say what they wait for, and wait for seconds only."""
    clock, rates = Clock(), Kept()
    one, other = (Limiter(clock, clock.sleep, "a", rates) for _ in range(2))
    one.acquire(lambda: 1000)
    other.acquire(lambda: 1000)
    assert 5 < clock.slept < 11
    assert [record.message for record in caplog.records] == [
        "waiting for the answer to the first request to this account, which states its limits; after 10 s without it another "
        "request is sent"
    ]
