"""Who pays for the vectors of a model of OpenAI's: a budget at one server."""

from dataclasses import dataclass

from tasks.embedders.budget import Budget
from tasks.embedders.interface import Allowed
from tasks.embedders.openai.limiter import Limiter
from tasks.embedders.openai.limits import least_seconds
from tasks.embedders.openai.packing import count_tokens
from tasks.embedders.openai.probing import Probe, probed
from tasks.embedders.openai.server import ATTEMPTS, Server, Terms


@dataclass(frozen=True)
class OpenAIAccount:
    """The Account of the interface. ``terms`` are its own, the rest is shared by the process through ``server``."""

    server: Server
    terms: Terms
    shortens: bool = False
    """Whether ``dimensions`` is sent: to all but a model that is known not to take it."""
    counts: bool = True
    """Whether the model's tokens are those of OpenAI's."""

    @property
    def limiter(self) -> Limiter:
        return self.terms.limiter or self.server.limiter

    @property
    def price(self) -> float | None:
        return self.terms.price

    @property
    def budget(self) -> Budget:
        return self.terms.budget

    def count(self, text: str) -> int | None:
        counted = count_tokens(text) if self.counts else None
        return counted.tokens if counted and counted.exact else None

    def prepare(self) -> None:
        """Forgets an earlier fatal answer, whose cause may have been put right, and probes the server."""
        self.server.mend()
        self.probe()

    def allowed(self) -> Allowed:
        """One attempt: who plans does not want to wait for a server that is not there."""
        self.server.mend()
        self.probe(attempts=1)
        return self.limiter.allowed

    def least_seconds(self, texts: int, tokens: int) -> float:
        return least_seconds(self.limiter.allowed, texts, tokens)

    def probe(self, attempts: int = ATTEMPTS) -> Probe:
        """One request of two short texts, once a process: the dimension and norm of the vectors, and whether the server
        takes base64, ``encoding_format`` and ``dimensions``. How many inputs it takes is learned from the first request that it refuses.

        Raises TransientError and FatalError; FatalError for another dimension than the space's.
        """
        return probed(self.server, self.terms, self.shortens, attempts)
