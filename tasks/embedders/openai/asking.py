"""One request with its retries: what passes by itself is waited for, and of what does not it is found out whose fault it is."""

import random
from dataclasses import dataclass, replace

from tasks.base.errors import TransientError, VecferryError
from tasks.embedders.openai.answers import Decoded, Verdict
from tasks.embedders.openai.health import REST, Paused
from tasks.embedders.openai.sending import Failure
from tasks.embedders.openai.server import ATTEMPTS, PROBES, Ask, Server
from tasks.embedders.texts import size

LONGEST_WAIT = 120.0
"""A retry-after beyond this fails the batch: the run goes on with others and names it for a rerun."""
PATIENT = 2
"""How often a request is sent that fails at once, before it is asked whose fault that is; and once that is known, again, where it
is a single text."""


@dataclass(frozen=True)
class Refused:
    """The server will not take this request as it is, and has nothing against others."""

    verdict: Verdict
    message: str
    words: str
    """The server's own: ``message`` names the model and the address too, and both have digits."""
    param: str = ""
    late: bool = False
    at: float = 0.0
    """When it was refused, by the server's clock."""


@dataclass
class Asking:
    """``run`` it once."""

    server: Server
    ask: Ask
    suspect_since: float | None = None
    """Of texts that were refused with others, though the server was well: that it was may be seen from then on."""
    attempts: int = ATTEMPTS
    first: bool = False
    """Whether the server has taken nothing yet, so that nothing can be held against the texts."""

    def run(self) -> Decoded | Refused:
        """The vectors, one row a text, or why the server will not take these texts. An answer that has some is returned even where
        the server is then found to be sick, or refuses a text that it took before: the next request meets that.

        A failure that may be the fault of the texts, the account or the server is held against the texts only where one is taken
        that was taken before. Raises TransientError when the server is not well for long, FatalError for what will not pass by
        itself, and where a server that was waited for in vain takes nothing later either.
        """
        try:
            return self._run()
        finally:
            self.server.health.leave()

    def _run(self) -> Decoded | Refused:
        health, failures, bouts = self.server.health, 0, 0
        self._proofs = 0
        # Where an earlier request has waited for a sick server in vain, the next is sent once.
        self._attempt, self._failed = (self.attempts - 1 if health.waited is not None else 0), 0.0
        while True:
            health.enter(self._halted)
            if (waited := health.waited) is not None and self.attempts == ATTEMPTS:
                self._sleep_until(waited + REST)
            failures, bouts = (failures if health.bouts == bouts else 0), health.bouts
            try:
                answer = self.server.once(self.ask, _delay(self._attempt + 1))
            except Paused:
                continue
            self._attempt, failures, self._failed = self._attempt + 1, failures + 1, self.server.clock()
            if isinstance(answer, Decoded) and not answer.spoilt:
                return answer
            if isinstance(answer, Decoded) and answer.partly and not self.first:
                return self._kept(answer, bouts)
            failure = answer if isinstance(answer, Failure) else _spoilt(answer)
            if failure.verdict == "fatal":
                raise self.server.fail(self.server.says(failure.words))
            if (self.first and failure.verdict != "transient") or failure.verdict in (
                "too_large",
                "too_many",
                "too_long",
            ):
                return self._refused(failure)
            if self._is_doubted(failure, failures):
                if health.sick:
                    self._back_off(failure)
                if self._at_fault(failure, bouts) and self._proven(failure):
                    return answer if isinstance(answer, Decoded) else self._refused(failure)
            if self._may_be_any(failure):
                health.one_tries(self._failed, self._halted)
            self._back_off(failure)

    def _kept(self, answer: Decoded, bouts: int) -> Decoded:
        """An answer that has some vectors, which are paid for: whatever becomes of the server, they are not lost by it."""
        try:
            proven = not self.server.health.sick and self._at_fault(_spoilt(answer), bouts)
        except VecferryError:  # which whoever asks for the other rows meets too
            proven = False
        return replace(answer, proven=proven)

    def _may_be_any(self, failure: Failure) -> bool:
        """Whether it may be the fault of anything: it is none that the server explains and that passes."""
        return not self.first and failure.status not in (409, 429) and failure.retry_after is None

    def _is_doubted(self, failure: Failure, failures: int) -> bool:
        """Whether it is time to ask whose fault this is; else the same is sent again first."""
        if failure.verdict != "transient":
            return True
        if not self._may_be_any(failure):
            return False
        several = len(self.ask.texts) > 1 and not self.server.health.sick
        hasty = several and (failure.late or self.suspect_since is not None)
        return failures >= (1 if hasty or self._proofs else PATIENT)

    def _at_fault(self, failure: Failure, bouts: int) -> bool:
        """Whether the texts are: one that was taken before is taken now too. It is not asked where a request that was sent since
        has passed. Raises FatalError where it is refused."""
        server, alone = self.server, len(self.ask.texts) == 1
        # What no API has explained sets no text aside by what was true before it failed.
        strictly = self.suspect_since is None or (alone and failure.verdict != "row")
        since = self._failed if strictly else self.suspect_since
        assert since is not None
        with server.health.alone(self._halted):
            if server.health.bouts != bouts:
                return False  # it was sick when it failed
            if server.health.passed > since:
                return True
            sick = server.health.sick
            witness = server.once(replace(self.ask, texts=PROBES[:1], tokens=lambda: size(PROBES[0])), _delay(1))
            if isinstance(witness, Decoded) and not witness.spoilt:
                return not sick
            second = witness if isinstance(witness, Failure) else _spoilt(witness)
            if second.verdict != "transient":
                raise server.fail(
                    f"{server.says(failure.words)}; a harmless text, which was taken before, is refused too: {second.words[:200]}"
                )
            server.health.ill()
        self._attempt += 1
        return False

    def _proven(self, failure: Failure) -> bool:
        """Whether it is enough that this was refused and another was not. A text that comes alone, and of which no API says what is
        wrong, is sent a few times more: that it failed while others passed may have been chance."""
        chance = len(self.ask.texts) == 1 and self.suspect_since is None and failure.verdict != "row"
        self._proofs += 1
        return not chance or self._proofs > PATIENT

    def _back_off(self, failure: Failure) -> None:
        """Waits before the next attempt. Raises TransientError where there is none."""
        message, delay, asked = self.server.says(failure.words), _delay(self._attempt), failure.retry_after
        if asked is not None:
            delay = asked + random.uniform(0, 0.1 * asked)
        if delay > LONGEST_WAIT or self._attempt >= self.attempts:
            raise self._given_up(failure, message + (f" (retry after {delay:.0f} s)" if asked else ""))
        self._sleep_until(self.server.clock() + delay)

    def _sleep_until(self, until: float) -> None:
        while (left := until - self.server.clock()) > 0:  # in slices, to notice that the run has stopped
            self._halted()
            self.server.sleep(min(left, 0.25))
        self._halted()

    def _given_up(self, failure: Failure, why: str) -> VecferryError:
        """A server that takes nothing is waited for by one request, and asked once more by the next: that ends the run."""
        health = self.server.health
        probed = self.first and failure.status != 429
        if self.attempts < ATTEMPTS or not (health.sick or probed):
            return TransientError(why)
        if health.waited is None:
            return health.give_up(why, self.server.clock())
        health.waited = None  # a later start waits for it anew
        return self.server.fail(f"{why}; it refuses every request: start the run again once it answers")

    def _refused(self, failure: Failure) -> Refused:
        if failure.late and len(self.ask.texts) > 1:
            self.server.sizes.fails(len(self.ask.texts))
        words = failure.words
        return Refused(failure.verdict, self.server.says(words), words, failure.param, failure.late, self._failed)

    def _halted(self) -> None:
        self.server.halted(self.ask)


def _delay(attempt: int) -> float:
    """Seconds before the next attempt after this one, counted from 1."""
    return min(0.25 * 2.0**attempt, 30.0) * random.uniform(0.75, 1.25)


def _spoilt(decoded: Decoded) -> Failure:
    return Failure("doubtful", "the answer has a text without a vector: " + next(iter(decoded.spoilt.values())))
