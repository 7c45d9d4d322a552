"""Images through a model, each made ready ahead of it, by a pool as large as the machine and no larger.

On a device the pool makes ready while two threads feed the model. On a processor both need the same cores, and a pass
that is spread over them waits at every layer for the slowest: there each thread makes its own images ready and passes them
through the model by itself.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np

from tasks.embedders.interface import RowError

T = TypeVar("T")
R = TypeVar("R")
Prepare = Callable[[bytes], Any | RowError]
"""Makes an image ready for the model, or says why it cannot be. Called from any thread."""
Forward = Callable[[Sequence[Any]], np.ndarray]
"""What a model makes of some: float32[n, d]. Called from any thread."""
BATCH_OF_CORE = 4
"""Images a forward pass of one core, which gains nothing by more."""


@dataclass(frozen=True)
class Passed:
    """Some of the images, done."""

    rows: Sequence[int]
    """Positions of those with a vector."""
    vectors: np.ndarray
    """float32[len(rows), d]"""
    rejected: Mapping[int, RowError]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def passed(images: Sequence[bytes], prepare: Prepare, forward: Forward, batch: int, alone: bool) -> Iterator[Passed]:
    """The images in their order, ``batch`` of them a pass. ``alone``: each thread for itself, as on a processor. Raises what
    ``forward`` raises, once all that was made by then is handed out."""
    if alone:
        batch = min(batch, max(1, -(-len(images) // cores())))
    starts = range(0, len(images), batch)

    def prepared(row: int) -> Any | RowError:
        return prepare(images[row])

    def whole(start: int) -> Passed:
        rows = range(start, min(start + batch, len(images)))
        return _pass({row: prepared(row) for row in rows}, forward)

    if alone and len(starts) >= cores():  # with fewer some would stand idle: those are spread over all of them
        yield from _in_order(_pool(), whole, starts, cores() + 1)
        return
    ready = _batches(_in_order(_pool(), prepared, range(len(images)), 2 * batch + cores()), batch)
    yield from _in_order(_feeding(), lambda rows: _pass(rows, forward), ready, 1)


def _batches(prepared: Iterable[Any], batch: int) -> Iterator[dict[int, Any]]:
    rows: dict[int, Any] = {}
    for row, result in enumerate(prepared):
        rows[row] = result
        if len(rows) == batch:
            yield rows
            rows = {}
    if rows:
        yield rows


def _pass(prepared: Mapping[int, Any | RowError], forward: Forward) -> Passed:
    rejected = {row: result for row, result in prepared.items() if isinstance(result, RowError)}
    rows = [row for row in prepared if row not in rejected]
    vectors = forward([prepared[row] for row in rows]) if rows else np.zeros((0, 0), np.float32)
    return Passed(rows, vectors, rejected)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], things: Iterable[T], ahead: int) -> Iterator[R]:
    """Results in order, at most ``ahead`` things under way. Where one fails, those that are under way are waited for, and
    what they give is handed out first."""
    waiting: deque[Future[R]] = deque()
    failure: BaseException | None = None
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except Exception as error:  # noqa: BLE001  raised below
        failure = error
    finally:
        for future in waiting:
            future.cancel()
    if failure:
        yield from (future.result() for future in waiting if not future.cancelled() and not future.exception())
        raise failure


@cache
def _pool() -> ThreadPoolExecutor:
    """The process's threads for images: whoever embeds, cores are not more."""
    pool = ThreadPoolExecutor(cores(), thread_name_prefix="images")
    one_thread(pool)
    return pool


@cache
def _feeding() -> ThreadPoolExecutor:
    """The process's threads that feed devices: while one waits for its batch, the other has brought the next."""
    return ThreadPoolExecutor(2, thread_name_prefix="model")


def one_thread(pool: ThreadPoolExecutor) -> None:
    """Starts as many threads of the pool as there are cores, and has torch work in each by itself."""
    import torch

    usual = torch.get_num_threads()
    together = threading.Barrier(cores())

    def begin() -> None:
        torch.get_num_threads()  # a thread takes over what holds for all when it is first asked, and would undo what comes now
        torch.set_num_threads(1)
        together.wait()

    for future in [pool.submit(begin) for _ in range(cores())]:
        future.result()
    torch.set_num_threads(usual)  # what it was told last holds for all threads that start later
