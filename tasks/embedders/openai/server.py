"""One model at one server: what all threads of a process share about it, and one request with its retries.

The official client is used with its own retries off: it repeats every 429, an exhausted quota too.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import orjson

from tasks.base.errors import FatalError, TransientError
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Rates
from tasks.embedders.openai.answers import Verdict, classify, code_of, decode
from tasks.embedders.openai.limiter import Limiter
from tasks.embedders.openai.limits import MAX_INPUTS, retry_after
from tasks.embedders.openai.packing import TokensPerByte
from tasks.embedders.openai.rate import Ticket
from tasks.embedders.texts import size

TIMEOUT = 60.0
"""Seconds without a byte of answer; the service takes a few seconds for its largest request."""
ATTEMPTS = 8
"""With backoff from half a second that is a minute's patience: as long as a limit by the minute needs."""
CONCURRENCY = 8
"""Requests under way at once; also the most that can still be under way when a fatal answer comes."""
LONGEST_WAIT = 120.0
"""A retry-after beyond this fails the batch: the run goes on with others and names it for a rerun."""
BROKEN_SECONDS = 60.0
"""After a fatal answer nothing is sent for so long, by any thread; a later run of the same process can try again."""

PROBES = ("vecferry", "A probe of two texts.")


@dataclass(frozen=True)
class Refused:
    """The server will not take this request as it is."""

    verdict: Literal["too_large", "too_many", "row"]
    message: str
    words: str
    """The server's own words: ``message`` names the model and the address too, and both have digits."""
    param: str = ""


@dataclass(frozen=True)
class _Answer:
    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Failure:
    verdict: Verdict
    message: str
    words: str = ""
    status: int = 0
    param: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """How a model is asked: what differs between compatible servers."""

    base64: bool = True
    dimensions: int | None = None
    """As sent; None where it is not."""


@dataclass(frozen=True)
class Probe:
    """What one small request found out about a model at a server."""

    dimensions: int
    norm: float
    shape: Shape


@dataclass(frozen=True)
class Terms:
    """What a request is made and paid under."""

    dimensions: int
    price: float
    """Dollars per million tokens."""
    budget: Budget
    limiter: Limiter | None = None
    """What paces it; None for the server's own, where no other process uses the account."""


@dataclass
class Server:
    """Shared by all threads that ask ``model`` of ``base_url`` with the same key."""

    base_url: str
    key: str = field(repr=False)
    model: str
    timeout: float = TIMEOUT
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    max_inputs: int = MAX_INPUTS
    """Lowered when the server turns out to take fewer."""

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.clock, self.sleep)
        self.density = TokensPerByte()
        self.budget = Budget()
        self.probes: dict[int, Probe] = {}
        self.probing = threading.Lock()
        self._slots = threading.BoundedSemaphore(CONCURRENCY)
        self._broken: tuple[float, str] | None = None

    @cached_property
    def client(self) -> Any:
        import openai  # takes a second, and planning does not need it

        return openai.OpenAI(api_key=self.key, base_url=self.base_url, max_retries=0, timeout=self.timeout)

    def limiter_in(self, rates: Rates) -> Limiter:
        """What paces requests together with all who keep ``rates``. The key is not told there."""
        account = hashlib.sha256(f"{self.base_url}\0{self.key}\0{self.model}".encode()).hexdigest()
        return Limiter(self.clock, self.sleep, account, rates)

    def check(self) -> None:
        """Raises FatalError where one has happened: no request starts after it."""
        if self._broken and self.clock() - self._broken[0] < BROKEN_SECONDS:
            raise FatalError(self._broken[1])

    def fail(self, message: str) -> FatalError:
        """Stops all requests to this server; returns the error to raise."""
        self._broken = (self.clock(), message)
        return FatalError(message)

    def mend(self) -> None:
        """Lets requests go again at once, when the cause of a fatal answer has been put right."""
        self._broken = None

    def says(self, what: str) -> str:
        """A message of the server's, without the key and not endless."""
        return f"{self.model} at {self.base_url}: {what.replace(self.key, '…')[:500]}"

    def request(
        self,
        texts: Sequence[str],
        tokens: Callable[[], float],
        shape: Shape,
        terms: Terms,
        stop: Callable[[], None] = lambda: None,
        attempts: int = ATTEMPTS,
    ) -> np.ndarray | Refused:
        """float32[len(texts), dimensions], one row a text, or why the server will not take them.

        ``tokens`` is the most they may have, as now known; ``stop`` raises when the caller has given up.
        Raises TransientError after ``attempts``, FatalError for what will not pass by itself.
        """

        def halted() -> None:
            self.check()
            terms.budget.check()
            stop()

        limiter = terms.limiter or self.limiter
        halted()
        with terms.budget.reserve(lambda: tokens() * terms.price / 1e6):
            for attempt in range(attempts):
                delay = min(0.5 * 2**attempt, 30.0) * random.uniform(0.75, 1.25)
                with self._slots:
                    ticket = limiter.acquire(tokens, halted)
                    try:
                        answer = self._send(texts, shape)
                    except BaseException:
                        limiter.settle(ticket, None, {})
                        raise
                    if isinstance(answer, _Answer):  # judged before its slot is free: it may be the last that is wanted
                        return self._answer(texts, ticket, answer, terms)
                limiter.settle(ticket, None, answer.headers)
                if answer.verdict == "fatal":
                    raise self.fail(answer.message)
                if answer.verdict != "transient":
                    return Refused(answer.verdict, answer.message, answer.words, answer.param)
                asked = retry_after(answer.headers)
                if asked is not None:
                    delay = asked + random.uniform(0, 0.1 * asked)
                if delay > LONGEST_WAIT or attempt == attempts - 1:
                    raise TransientError(answer.message + (f" (retry after {delay:.0f} s)" if asked else ""))
                if answer.status == 429:
                    limiter.refused(ticket, delay, answer.headers)
                self._wait(delay, halted)
        raise AssertionError("the last attempt returns or raises")

    def probe(self, terms: Terms, sends_dimensions: bool, attempts: int = ATTEMPTS) -> Probe:
        """Asks once a process how the model is to be asked; later calls return what came out.

        Raises FatalError when no way of asking is accepted, or the vectors are not of ``terms.dimensions``.
        """
        with self.probing:
            if probe := self.probes.get(terms.dimensions):
                return probe
            asked = [terms.dimensions, None] if sends_dimensions else [None]
            refused: Refused | None = None
            for dimensions in asked:
                for base64 in (True, False):
                    shape = Shape(base64, dimensions)
                    answer = self.request(PROBES, lambda: sum(map(size, PROBES)), shape, terms, attempts=attempts)
                    if isinstance(answer, np.ndarray):
                        norm = float(np.linalg.norm(answer, axis=1).mean())
                        self.probes[terms.dimensions] = Probe(answer.shape[1], norm, shape)
                        return self.probes[terms.dimensions]
                    refused = refused or answer
            assert refused
            raise self.fail(f"{refused.message}; it was asked for two short texts, with and without base64")

    def _send(self, texts: Sequence[str], shape: Shape) -> _Answer | _Failure:
        import openai

        extra = {} if shape.dimensions is None else {"dimensions": shape.dimensions}
        try:
            answer = self.client.embeddings.with_raw_response.create(
                model=self.model,
                input=[],
                # As ``input`` the client would look through every text for files to send along.
                extra_body={"input": list(texts)},
                # The client's own base64 path makes a list of Python floats of each vector: twice the time.
                encoding_format="base64" if shape.base64 else "float",
                **extra,
            )
        except openai.APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {}
            message = str(body.get("message") or error.message)
            code = code_of(body)
            param = str(body.get("param") or "")
            verdict = classify(error.status_code, code, message, param)
            full = self.says(f"{error.status_code} {code} {message}")
            return _Failure(verdict, full, message, error.status_code, param, error.response.headers)
        except openai.APIConnectionError as error:
            return _Failure("transient", self.says(f"{error.message} {error.__cause__ or ''}"))
        return _Answer(answer.content, answer.headers)

    def _answer(self, texts: Sequence[str], ticket: Ticket, answer: _Answer, terms: Terms) -> np.ndarray:
        """The vectors of an answer, after counting what it cost. Whatever is wrong with one is fatal: it is paid for,
        and the next would be no better."""
        limiter = terms.limiter or self.limiter
        try:
            body = orjson.loads(answer.content)
            usage = body.get("usage") or {}
            counted = usage.get("total_tokens") or usage.get("prompt_tokens")
            tokens = float(counted) if counted else None
        except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
            limiter.settle(ticket, None, answer.headers)
            raise self.fail(self.says("the answer is not JSON of an embeddings API: check the base URL")) from None
        billed = ticket.tokens if tokens is None else tokens
        terms.budget.add(round(billed), billed * terms.price / 1e6)
        limiter.settle(ticket, billed, answer.headers)
        self.density.learn(sum(map(size, texts)), None if tokens is None else round(tokens))
        try:
            return decode(body, len(texts), terms.dimensions)
        except ValueError as error:
            raise self.fail(self.says(str(error))) from None

    def _wait(self, delay: float, stop: Callable[[], None]) -> None:
        """Sleeps in slices, so that a thread that waits to retry notices that the run has stopped."""
        until = self.clock() + delay
        while (left := until - self.clock()) > 0:
            stop()
            self.sleep(min(left, 0.25))
        stop()


_servers: dict[tuple[str, str, str], Server] = {}
"""Process-wide: what a server said of its limits, and of how it wants to be asked, holds for whoever asks it next."""
_opening = threading.Lock()


def server(base_url: str, key: str, model: str) -> Server:
    """The one of this process for these three."""
    known = (base_url, hashlib.sha256(key.encode()).hexdigest(), model)
    with _opening:
        if known not in _servers:
            _servers[known] = Server(base_url, key, model)
        return _servers[known]
