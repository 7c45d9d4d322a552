"""One model at one server: what all threads of a process share about it, and one request that is sent once."""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.base.errors import FatalError
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Rates
from tasks.embedders.openai.address import address_of
from tasks.embedders.openai.answers import Decoded, decode, parse
from tasks.embedders.openai.health import Health
from tasks.embedders.openai.limiter import Limiter
from tasks.embedders.openai.packing import TokensPerByte
from tasks.embedders.openai.rate import Ticket
from tasks.embedders.openai.sending import CONCURRENCY, Answer, Failure, Sender, Shape
from tasks.embedders.openai.sizes import Sizes
from tasks.embedders.texts import size

TIMEOUT = 60.0
"""Seconds without a byte of answer; the service takes a few seconds for its largest request."""
ATTEMPTS = 8
"""With backoff from half a second that is a minute's patience: as long as a limit by the minute needs."""
BROKEN_SECONDS = 60.0
"""After a fatal answer nothing is sent for so long, by any thread; a later run of the same process can try again."""

PROBES = ("vecferry", "A probe of two texts.")
"""What is asked first; the first of them is asked again where a server is in doubt."""


@dataclass(frozen=True)
class Terms:
    """What a request is made and paid under."""

    dimensions: int
    price: float | None
    """Dollars per million tokens; None where it is not known."""
    budget: Budget
    limiter: Limiter | None = None
    """What paces it; None for the server's own, where no other process uses the account."""
    timeout: float | None = None
    """Seconds without a byte of answer; None for the server's own."""
    max_inputs: int | None = None
    """Texts a request may have; None for what the server takes."""

    def dollars(self, tokens: float) -> float:
        return tokens * (self.price or 0.0) / 1e6


@dataclass(frozen=True)
class Ask:
    """One request as it is to be made."""

    texts: Sequence[str]
    tokens: Callable[[], float]
    """The most that they may have, as now known."""
    shape: Shape
    terms: Terms
    stop: Callable[[], None] = lambda: None
    """Raises when the caller has given up."""


@dataclass
class Server:
    """Shared by all threads that ask ``model`` of ``base_url`` with the same key."""

    base_url: str
    key: str = field(repr=False)
    model: str
    timeout: float = TIMEOUT
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    api_version: str | None = None

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.clock, self.sleep)
        self.density = TokensPerByte()
        self.budget = Budget()
        self.sizes = Sizes()
        self.health = Health()
        self.max_tokens: int | None = None
        """Tokens that a text may have, where the server has said so."""
        self.probes: dict[int, Any] = {}
        """What the first request for vectors of so many dimensions has shown."""
        self.probing = threading.Lock()
        self.sender = Sender(address_of(self.base_url, self.model, self.api_version), self.key, self.model)
        self._slots = threading.BoundedSemaphore(CONCURRENCY)
        self._broken: tuple[float, str] | None = None

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

    def once(self, ask: Ask, delay: float) -> Decoded | Failure:
        """Sends it, once, when the account's limits allow it; after a 429 nobody sends for what the server asks, else ``delay``
        seconds.

        Raises FatalError for an answer that is paid for and of no use, Paused while another thread finds out whether the server
        is well.
        """

        def halted() -> None:
            self.halted(ask)
            self.health.check()

        terms, limiter = ask.terms, ask.terms.limiter or self.limiter
        halted()
        with terms.budget.reserve(lambda: terms.dollars(ask.tokens())), self._slots:
            ticket = limiter.acquire(ask.tokens, halted)
            sent = self.clock()
            try:
                answer = self.sender.send(ask.texts, ask.shape, terms.timeout or self.timeout)
            except BaseException:
                limiter.settle(ticket, None, {})
                raise
            if isinstance(answer, Answer):  # judged before its slot is free: it may be the last that is wanted
                decoded = self._answer(ask, ticket, answer)
                if not decoded.spoilt:
                    self.health.well(sent)
                return decoded
        limiter.settle(ticket, None, answer.headers)
        if answer.status == 429 and answer.verdict == "transient":
            limiter.refused(ticket, delay if answer.retry_after is None else answer.retry_after, answer.headers)
        return answer

    def halted(self, ask: Ask) -> None:
        """Raises where nothing is to be sent any more."""
        self.check()
        ask.terms.budget.check()
        ask.stop()

    def _answer(self, ask: Ask, ticket: Ticket, answer: Answer) -> Decoded:
        """The vectors of an answer, after counting what it cost. One that is not what it should be as a whole is fatal: it is paid
        for, and the next would be no better."""
        terms, limiter = ask.terms, ask.terms.limiter or self.limiter
        try:
            body = parse(answer.content)
            usage = body.get("usage") or {}
            counted = usage.get("total_tokens") or usage.get("prompt_tokens")
            tokens = float(counted) if counted else None
        except (AttributeError, TypeError, ValueError):
            limiter.settle(ticket, None, answer.headers)
            words = answer.content[:200].decode(errors="replace")
            raise self.fail(
                self.says(f"the answer is not JSON of an embeddings API: check the base URL; it says {words!r}")
            ) from None
        billed = ticket.tokens if tokens is None else tokens
        terms.budget.add(round(billed), terms.dollars(billed))
        limiter.settle(ticket, billed, answer.headers)
        self.density.learn(sum(map(size, ask.texts)), None if tokens is None else round(tokens))
        self.sizes.passes(len(ask.texts), answer.seconds, terms.timeout or self.timeout)
        try:
            return decode(body, len(ask.texts), terms.dimensions)
        except ValueError as error:
            raise self.fail(self.says(str(error))) from None


_servers: dict[tuple[str, str, str, str | None], Server] = {}
"""Process-wide: what a server said of its limits, and of how it wants to be asked, holds for whoever asks it next."""
_opening = threading.Lock()


def server(base_url: str, key: str, model: str, api_version: str | None = None) -> Server:
    """The one of this process for these four. Raises ValueError where the base URL is none."""
    known = (base_url, hashlib.sha256(key.encode()).hexdigest(), model, api_version)
    with _opening:
        if known not in _servers:
            _servers[known] = Server(base_url, key, model, api_version=api_version)
        return _servers[known]
