"""One batch of texts to a server: packed, sent by several threads, split where refused, put back in order.

All state is the calling thread's: the other threads only wait for their turn, send, and decode.
"""

import re
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
from tasks.embedders.openai.packing import Caps, count_tokens, take
from tasks.embedders.openai.server import CONCURRENCY, PROBES, Refused
from tasks.embedders.texts import RUNGS, OnTooLong, cut, cuts, mean, size, unfit

# How much is sent before the server has said how many tokens that is.
_FIRST_BYTES = 32_768
# Nobody's text has sixteen bytes a token on average; a longer one is not sent to hear that.
_SURELY_TOO_LONG = 16
_NAMED_INPUT = re.compile(r"input\[(\d+)\]")
_SAYS_TOO_LONG = re.compile(
    r"context.?length|too long|input length|too many tokens|less than \d+ tokens|tokens exceed|max\w* \d* ?tokens",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Piece:
    """A text, or a part of an over-long one."""

    row: int
    text: str
    bytes: int
    tokens: int | None
    """Exact, or None where it could not be counted."""
    rung: int = -1
    """Which of RUNGS it was cut by; -1 uncut."""
    part: int = 0


@dataclass
class _Refusal:
    """A request that was refused whole, and what became of its parts: when none is at fault, it was too many."""

    open: int = 1
    faulty: bool = False
    largest: int = 0


@dataclass(frozen=True)
class _Pack:
    pieces: Sequence[Piece]
    refusal: _Refusal | None = None


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
        self._split: deque[_Pack] = deque()
        self._rungs = [-1] * len(texts)
        self._parts: dict[int, list[np.ndarray | None]] = {}
        self._answered = False
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
        flying: dict[Future[np.ndarray | Refused], _Pack] = {}
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="openai") as threads:
            try:
                while True:
                    while not failure and len(flying) < CONCURRENCY and (pack := self._next()):
                        flying[threads.submit(self._request, pack.pieces)] = pack
                    if not flying:
                        break
                    failure = self._settle_all(flying, wait(flying, return_when=FIRST_COMPLETED).done, failure)
            except BaseException as error:  # noqa: BLE001  an interrupt: what is paid for is kept all the same
                self._halt.set()  # and the retries of the others are not waited for
                raise self._settle_all(flying, set(flying), error) or error from None
        if failure:
            raise failure

    def _next(self) -> _Pack | None:
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
        caps = Caps(min(inputs, self._server.max_inputs), tokens, self.max_tokens)
        window = [_tokens(self._waiting[i], density) for i in range(min(len(self._waiting), caps.inputs))]
        return _Pack([self._waiting.popleft() for _ in range(take(window, 0, caps))])

    def _request(self, pieces: Sequence[Piece]) -> np.ndarray | Refused:
        def tokens() -> float:
            density = self._server.density.value
            return sum(_tokens(piece, density) for piece in pieces)

        def stop() -> None:
            if self._halt.is_set():
                raise _Halted

        return self._server.request([piece.text for piece in pieces], tokens, self._shape, self.account.terms, stop)

    def _settle_all(
        self,
        flying: dict["Future[np.ndarray | Refused]", _Pack],
        arrived: set["Future[np.ndarray | Refused]"],
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

    def _settle(self, pack: _Pack, answer: np.ndarray | Refused) -> list[int]:
        """Takes in one answer; returns the rows that have their vector by it."""
        if isinstance(answer, Refused):
            self._refused(pack, answer)
            return []
        self._answered = True
        self._closed(pack, faulty=False)
        current = [p.rung == self._rungs[p.row] and p.row not in self.rejected for p in pack.pieces]
        whole = [at for at, p in enumerate(pack.pieces) if current[at] and p.row not in self._parts]
        rows = [pack.pieces[at].row for at in whole]
        self.vectors[_span(rows)] = answer if len(whole) == len(answer) else answer[whole]
        for at, piece in enumerate(pack.pieces):
            if current[at] and piece.row in self._parts:  # else a part of a text that has been cut again, smaller
                parts = self._parts[piece.row]
                parts[piece.part] = answer[at]
                there = [part for part in parts if part is not None]
                if len(there) == len(parts):
                    self.vectors[piece.row] = mean(np.array(there), self._lengths(piece.row))
                    rows.append(piece.row)
        return rows

    def _refused(self, pack: _Pack, refused: Refused) -> None:
        pieces = pack.pieces
        if len(pieces) == 1:
            self._alone_refused(pieces[0], refused)
            self._closed(pack, faulty=True)
            return
        named = _NAMED_INPUT.search(refused.param) or _NAMED_INPUT.search(refused.words)
        most = [int(n) for n in re.findall(r"\d+", refused.words) if 0 < int(n) < len(pieces)]
        if refused.verdict == "too_many" and most:
            step = max(most)
            self._server.max_inputs = min(self._server.max_inputs, step)
            parts = [pieces[i : i + step] for i in range(0, len(pieces), step)]
        elif refused.verdict == "row" and named and int(named[1]) < len(pieces):
            at = int(named[1])
            parts = [[pieces[at]], [*pieces[:at], *pieces[at + 1 :]]]
        else:
            parts = [pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]]
        refusal = pack.refusal
        if refusal is None and refused.verdict != "too_large":
            refusal = _Refusal()
        if refusal:
            refusal.open += len(parts) - 1
        self._split.extend(_Pack(part, refusal) for part in parts)

    def _alone_refused(self, piece: Piece, refused: Refused) -> None:
        text_may_be_too_long = piece.bytes > self.max_tokens and (
            refused.verdict == "too_large" or _SAYS_TOO_LONG.search(refused.message)
        )
        if text_may_be_too_long:
            self._cut(piece.row, piece.rung, refused.message)
            return
        if not self._answered:
            # Nothing of this batch has gone through: is it the texts, or the way they are sent?
            probe = [Piece(0, text, size(text), None) for text in PROBES]
            if isinstance(self._request(probe), Refused):
                raise self._server.fail(f"{refused.message}; a harmless text is refused too")
            self._answered = True
        self.rejected[piece.row] = RowError("refused", refused.message)

    def _closed(self, pack: _Pack, faulty: bool) -> None:
        if refusal := pack.refusal:
            refusal.open -= 1
            refusal.faulty |= faulty
            refusal.largest = max(refusal.largest, len(pack.pieces))
            if not refusal.open and not refusal.faulty:
                self._server.max_inputs = min(self._server.max_inputs, refusal.largest)

    def _admit(self, row: int) -> None:
        """Queues a text whole, or cut where it is known to be too long, or rejects it without a call."""
        text = self.texts[row]
        if error := unfit(text):
            self.rejected[row] = error
            return
        length = size(text)
        piece = _piece(row, text, length)
        if piece.tokens is not None and piece.tokens > self.max_tokens:
            self._cut(row, -1, f"{counted(piece.tokens, 'token')}, where the model takes {self.max_tokens:,}")
        elif piece.tokens is None and length > _SURELY_TOO_LONG * self.max_tokens:
            self._cut(row, -1, f"{counted(length, 'byte')}, too long for {counted(self.max_tokens, 'token')}")
        else:
            self._waiting.append(piece)

    def _cut(self, row: int, rung: int, why: str) -> None:
        """Does with an over-long text what was asked for, in the next smaller size that fits."""
        if rung != self._rungs[row] or row in self.rejected:
            return  # another part of it was refused before
        if rung >= 0:
            self._waiting = deque(piece for piece in self._waiting if piece.row != row)
        text = self.texts[row]
        for smaller, pieces in cuts(text, self.max_tokens, rung) if self.on_too_long != "quarantine" else ():
            cut_pieces = [_piece(row, part, size(part), smaller, i) for i, part in enumerate(pieces)]
            if self.on_too_long == "truncate":
                cut_pieces = cut_pieces[:1]
            if any(piece.tokens is not None and piece.tokens > self.max_tokens for piece in cut_pieces):
                continue
            self._rungs[row] = smaller
            if self.on_too_long == "mean":
                self._parts[row] = [None] * len(cut_pieces)
            self._waiting.extend(cut_pieces)
            return
        self.rejected[row] = RowError("too_long", why)

    def _lengths(self, row: int) -> list[int]:
        return [size(part) for part in cut(self.texts[row], int(RUNGS[self._rungs[row]] * self.max_tokens))]


class _Halted(VecferryError):
    """This request was not sent: the batch has failed already."""


def _piece(row: int, text: str, length: int, rung: int = -1, part: int = 0) -> Piece:
    tokens = count_tokens(text)
    return Piece(row, text, length, tokens.tokens if tokens.exact else None, rung, part)


def _tokens(piece: Piece, density: float) -> float:
    return piece.bytes * density if piece.tokens is None else piece.tokens


def _graver(one: BaseException | None, other: BaseException) -> BaseException:
    """Which of two failures is the one to report: what stops the run before what may pass."""
    if one is None or (isinstance(one, TransientError) and not isinstance(other, TransientError)):
        return other
    return other if isinstance(other, FatalError) and not isinstance(one, FatalError) else one


def _span(rows: list[int]) -> slice | list[int]:
    """What takes these rows out of an array: without a copy where one follows on the other."""
    following = rows and rows == list(range(rows[0], rows[-1] + 1))
    return slice(rows[0], rows[-1] + 1) if following else rows
