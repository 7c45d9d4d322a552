"""Work that goes on ahead of who takes its results, and no further than there is room for them."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(
    function: Callable[[A], B],
    inputs: Iterable[A],
    workers: int,
    room: float,
    weight: Callable[[B], float] = lambda result: 1,
) -> Generator[B, None, None]:
    """What ``function`` makes of each input, in their order, by so many threads.

    A thread takes up the next input while there is room beside what was made and not yet taken, each that is under way counted
    as the heaviest so far; so ``room`` is exceeded by what the threads are at, at most. No thread waits for room: what a taken
    result leaves is used at once. Raises what ``function`` and ``inputs`` raise, in its place; then, and where the caller
    stops early, what has begun is waited for, and nothing more is begun.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        work = _Ahead(lambda item: pool.submit(function, item), iter(inputs), workers, room, weight)
        try:
            work.begin()
            while work.tasks:
                yield work.take()
        finally:
            work.end()


@dataclass
class _Task:
    """What is known of one. It does not have its future, which calls back with it: together they would outlive their use."""

    ended: bool = False
    weight: float = 0.0


@dataclass
class _Ahead(Generic[A, B]):
    submit: "Callable[[A], Future[B]]"
    inputs: Iterator[A]
    workers: int
    room: float
    weight: Callable[[B], float]
    tasks: "deque[tuple[_Task, Future[B]]]" = field(default_factory=deque)
    """What is begun and not yet taken."""
    running: int = 0
    made: float = 0.0
    """The weight of what is done and not yet taken."""
    heaviest: float = 0.0
    over: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Reentrant: what is done by the time that it is asked to call back does so at once."""

    def begin(self) -> None:
        """Begins what there is room for."""
        with self.lock:
            while not self.over and self.running < self.workers and (not self.tasks or self._fits()):
                try:
                    future = self.submit(next(self.inputs))
                except StopIteration:
                    self.over = True
                    return
                except Exception as error:  # noqa: BLE001  raised where its result would be taken
                    future = Future()
                    future.set_exception(error)
                self.tasks.append((task := _Task(), future))
                self.running += 1
                future.add_done_callback(partial(self._end, task))

    def _fits(self) -> bool:
        return self.made + (self.running + 1) * self.heaviest <= self.room

    def _end(self, task: _Task, future: "Future[B]") -> None:
        with self.lock:
            if not task.ended:
                task.ended = True
                self.running -= 1
                if future.cancelled() or future.exception():
                    self.over = True
                else:
                    task.weight = self.weight(future.result())
                    self.heaviest = max(self.heaviest, task.weight)
                    self.made += task.weight
            self.begin()

    def take(self) -> B:
        """What is next, waited for; makes room."""
        task, future = self.tasks[0]
        future.exception()
        with self.lock:
            self._end(task, future)  # whoever waits is told before who is called back
            self.tasks.popleft()
            self.made -= task.weight
            self.begin()
        return future.result()

    def end(self) -> None:
        with self.lock:
            self.over = True
            for _, future in self.tasks:
                future.cancel()
