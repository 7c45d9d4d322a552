"""One batch of texts to a server: packed, sent by several threads, split where refused, put back in order.

All state is the calling thread's: the other threads only wait for their turn, send, and decode.
"""

import math
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from tasks.base.errors import FatalError, TransientError, VecferryError
from tasks.base.words import counted
from tasks.embedders.interface import Embedded, OnMade, RowError
from tasks.embedders.openai.account import OpenAIAccount
from tasks.embedders.openai.answers import Decoded
from tasks.embedders.openai.asking import Asking, Refused
from tasks.embedders.openai.packing import Caps, take
from tasks.embedders.openai.pieces import Pack, Piece, Refusal, halves, parts_of, stated_most, tokens_of
from tasks.embedders.openai.sending import CONCURRENCY
from tasks.embedders.openai.server import Ask
from tasks.embedders.openai.too_long import LEAST, stated_limit
from tasks.embedders.texts import RUNGS, OnTooLong, cut, cuts, mean, size, unfit

# How much is sent before the server has said how many tokens that is.
_FIRST_BYTES = 32_768
# Nobody's text has sixteen bytes a token on average; a longer one is not sent to hear that.
_SURELY_TOO_LONG = 16
# For a server that does not say how many tokens a text may have: smaller pieces, until one is taken.
_BELOW = tuple(part * 2.0**-times for times in range(8) for part in (0.75, 0.5))


@dataclass
class Batch:
    """``run`` it once."""

    account: OpenAIAccount
    max_tokens: int
    on_too_long: OnTooLong
    on_made: OnMade | None
    vectors: np.ndarray = field(init=False)
    rejected: dict[int, RowError] = field(init=False, default_factory=dict)

    def run(self, texts: Sequence[str]) -> Embedded:
        """As Embedder.embed."""
        self.texts, self._server = texts, self.account.server
        self.vectors = np.zeros((len(texts), self.account.terms.dimensions), np.float32)
        self._waiting: deque[Piece] = deque()
        self._split: deque[Pack] = deque()
        self._steps = [math.inf] * len(texts)
        self._parts: dict[int, list[np.ndarray | None]] = {}
        self._halt = threading.Event()
        self._unkept: list[int] = []
        for row in range(len(texts)):
            self._admit(row)
        if self._waiting:
            self._shape = self.account.probe().shape
            self._send_all()
        return Embedded(self.vectors, self.rejected)

    def _send_all(self) -> None:
        failure: BaseException | None = None
        flying: dict[Future[Decoded | Refused], Pack] = {}
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="openai") as threads:
            try:
                while True:
                    while not failure and len(flying) < self._width and (pack := self._next()):
                        flying[threads.submit(self._request, pack)] = pack
                    if not flying:
                        break
                    failure = self._settle_all(flying, wait(flying, return_when=FIRST_COMPLETED).done, failure)
            except BaseException as error:  # noqa: BLE001  an interrupt: what is paid for is kept all the same
                self._halt.set()  # and the retries of the others are not waited for
                raise self._settle_all(flying, set(flying), error) or error from None
        if failure:
            raise failure

    def _next(self) -> Pack | None:
        if self._split:
            return self._split.popleft()
        if not self._waiting:
            return None
        density = self._server.density.value
        inputs, tokens = self.account.limiter.caps(len(self._waiting), CONCURRENCY)
        if not self._server.density.known:
            tokens = min(tokens, _FIRST_BYTES)
        if self.account.terms.price:  # the last of a budget is spent in smaller requests, not left over
            tokens = min(tokens, self.account.terms.budget.left / self.account.terms.price * 1e6)
        inputs = min(inputs, self._server.sizes.most, self.account.terms.max_inputs or inputs)
        caps = Caps(inputs, tokens, self._limit)
        window = [tokens_of(self._waiting[i], density) for i in range(min(len(self._waiting), caps.inputs))]
        return Pack([self._waiting.popleft() for _ in range(take(window, 0, caps))])

    @property
    def _width(self) -> int:
        """Requests at a time: what one of them finds out about a server, the others need not."""
        return CONCURRENCY if self._server.sizes.known else 1

    @property
    def _limit(self) -> int:
        """Tokens that a text may have: as asked for, or less where the server takes less."""
        return min(self.max_tokens, self._server.max_tokens or self.max_tokens)

    def _request(self, pack: Pack) -> Decoded | Refused:
        def tokens() -> float:
            density = self._server.density.value
            return sum(tokens_of(piece, density) for piece in pack.pieces)

        def stop() -> None:
            if self._halt.is_set():
                raise _Halted

        ask = Ask([piece.text for piece in pack.pieces], tokens, self._shape, self.account.terms, stop)
        return Asking(self._server, ask, pack.suspect_since).run()

    def _settle_all(
        self,
        flying: dict["Future[Decoded | Refused]", Pack],
        arrived: set["Future[Decoded | Refused]"],
        failure: BaseException | None,
    ) -> BaseException | None:
        """Takes in what has arrived, out of what is under way, and hands it over at once; returns the failure to raise when
        all that is paid for is kept."""
        for future in arrived:
            try:
                self._unkept += self._settle(flying[future], future.result())
            except _Halted:
                pass
            except Exception as error:  # noqa: BLE001
                failure = self._failed(failure, error)
            del flying[future]
        try:
            if self._unkept and self.on_made:
                rows = list(dict.fromkeys(self._unkept))
                self.on_made(rows, self.vectors[_span(rows)])
            self._unkept = []
        except Exception as error:  # noqa: BLE001
            failure = self._failed(failure, error)
        return failure

    def _failed(self, failure: BaseException | None, error: BaseException) -> BaseException:
        self._halt.set()
        return _graver(failure, error)

    def _settle(self, pack: Pack, answer: Decoded | Refused) -> list[int]:
        """Takes in one answer; returns the rows that have their vector by it."""
        if isinstance(answer, Refused):
            self._refused(pack, answer)
            return []
        self._server.sizes.known = True
        if answer.spoilt:
            self._spoilt(pack, answer)
        else:
            self._closed(pack, faulty=False)
        current = [
            p.step == self._steps[p.row] and p.row not in self.rejected and at not in answer.spoilt
            for at, p in enumerate(pack.pieces)
        ]
        whole = [at for at, p in enumerate(pack.pieces) if current[at] and p.row not in self._parts]
        rows = [pack.pieces[at].row for at in whole]
        vectors = answer.vectors
        self.vectors[_span(rows)] = vectors if len(whole) == len(vectors) else vectors[whole]
        for at, piece in enumerate(pack.pieces):
            if current[at] and piece.row in self._parts:  # else a part of a text that has been cut again, smaller
                parts = self._parts[piece.row]
                parts[piece.part] = vectors[at]
                there = [part for part in parts if part is not None]
                if len(there) == len(parts):
                    self.vectors[piece.row] = mean(np.array(there), self._lengths(piece.row))
                    rows.append(piece.row)
        return rows

    def _refused(self, pack: Pack, refused: Refused) -> None:
        pieces = pack.pieces
        if refused.verdict == "too_long" and (stated := stated_limit(refused.words)):
            self._server.max_tokens = min(stated, self._server.max_tokens or stated)
        if len(pieces) == 1:
            self._alone_refused(pieces[0], refused)
            self._closed(pack, faulty=True)
            return
        if refused.verdict == "too_many" and (most := stated_most(refused.words, len(pieces))):
            self._server.sizes.told = min(self._server.sizes.told, most)
        parts = parts_of(pieces, refused, self._server.sizes.most)
        refusal = pack.refusal
        if refusal is None and refused.verdict not in ("too_large", "too_long"):
            refusal = Refusal(refused.verdict)
        if refusal:
            refusal.open += len(parts) - 1
        if refused.verdict in ("row", "doubtful", "transient"):
            # What passed since the request before this one was refused, its other half for one, shows that the server is well.
            since, made = refused.at if pack.made is None else pack.made, self._server.clock()
            self._split.extend(Pack(part, refusal, since, made) for part in parts)
        else:
            self._split.extend(Pack(part, refusal) for part in parts)

    def _alone_refused(self, piece: Piece, refused: Refused) -> None:
        if refused.verdict in ("too_large", "too_long") and piece.bytes > LEAST:
            self._cut(piece.row, piece.step, refused.message)
        else:
            self.rejected[piece.row] = RowError("refused", refused.message)

    def _spoilt(self, pack: Pack, answer: Decoded) -> None:
        """Texts whose vectors are none are asked for again by themselves, and set aside where that comes to the same."""
        bad = [pack.pieces[at] for at in answer.spoilt]
        if len(pack.pieces) == 1 and pack.suspect_since is not None:
            self.rejected[bad[0].row] = RowError("refused", self._server.says(answer.spoilt[0]))
            self._closed(pack, faulty=True)
            return
        parts = halves(bad) if len(bad) == len(pack.pieces) > 1 else [bad]
        if pack.refusal:
            pack.refusal.faulty = True  # whatever becomes of them, it was not too many
            pack.refusal.open += len(parts) - 1
        now = self._server.clock() if answer.proven else None
        self._split.extend(Pack(part, pack.refusal, now, now) for part in parts)

    def _closed(self, pack: Pack, faulty: bool) -> None:
        if refusal := pack.refusal:
            refusal.open -= 1
            refusal.faulty |= faulty
            refusal.largest = max(refusal.largest, len(pack.pieces))
            if refusal.open or refusal.faulty:
                return
            if refusal.verdict in ("row", "too_many"):
                self._server.sizes.told = min(self._server.sizes.told, refusal.largest)
            else:
                self._server.sizes.shows(refusal.largest)

    def _admit(self, row: int) -> None:
        """Queues a text whole, or cut where it is known to be too long, or rejects it without a call."""
        text = self.texts[row]
        if error := unfit(text):
            self.rejected[row] = error
            return
        piece, limit = self._piece(row, text), self._limit
        if piece.tokens is not None and piece.tokens > limit:
            self._cut(row, math.inf, f"{counted(piece.tokens, 'token')}, where the model takes {limit:,}")
        elif piece.tokens is None and piece.bytes > _SURELY_TOO_LONG * limit:
            self._cut(row, math.inf, f"{counted(piece.bytes, 'byte')}, too long for {counted(limit, 'token')}")
        else:
            self._waiting.append(piece)

    def _cut(self, row: int, step: float, why: str) -> None:
        """Does with an over-long text what was asked for, in the next smaller size that fits."""
        if step != self._steps[row] or row in self.rejected:
            return  # another part of it was refused before
        if step < math.inf:
            self._waiting = deque(piece for piece in self._waiting if piece.row != row)
        text, limit = self.texts[row], self._limit
        for smaller, parts in cuts(text, limit, (*RUNGS, *_BELOW), step) if self.on_too_long != "quarantine" else ():
            pieces = [self._piece(row, part, smaller, i) for i, part in enumerate(parts)]
            if self.on_too_long == "truncate":
                pieces = pieces[:1]
            if any(piece.tokens is not None and piece.tokens > limit for piece in pieces):
                continue
            self._steps[row] = smaller
            if self.on_too_long == "mean":
                self._parts[row] = [None] * len(pieces)
            self._waiting.extend(pieces)
            return
        self.rejected[row] = RowError("too_long", why)

    def _lengths(self, row: int) -> list[int]:
        return [size(part) for part in cut(self.texts[row], int(self._steps[row]))]

    def _piece(self, row: int, text: str, step: float = math.inf, part: int = 0) -> Piece:
        return Piece(row, text, size(text), self.account.count(text), step, part)


class _Halted(VecferryError):
    """This request was not sent: the batch has failed already."""


def _graver(one: BaseException | None, other: BaseException) -> BaseException:
    """Which of two failures is the one to report: what stops the run before what may pass."""
    if one is None or (isinstance(one, TransientError) and not isinstance(other, TransientError)):
        return other
    return other if isinstance(other, FatalError) and not isinstance(one, FatalError) else one


def _span(rows: list[int]) -> slice | list[int]:
    """What takes these rows out of an array: without a copy where one follows on the other."""
    following = rows and rows == list(range(rows[0], rows[-1] + 1))
    return slice(rows[0], rows[-1] + 1) if following else rows
