"""Models at work: each is loaded once, what several requests ask of it at the same time is embedded in one call, and how much
may wait is bounded."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from flows.service.problems import Refused
from tasks.base.errors import UsageError
from tasks.base.words import counted, listed, plural
from tasks.embedders.interface import Embedded, Embedder, Item, Kind, OnMade, RowError
from tasks.embedders.registry import open_embedder

TOGETHER = 32
"""Items that are embedded in one call, of however many requests."""
THREADS_OF_PAID = 4
"""Calls under way at a provider. A model on this machine is called by one thread, and has its own."""


def kind_of(item: Item) -> Kind:
    return "text" if isinstance(item, str) else "image"


@dataclass(frozen=True)
class Job:
    """What one request asks of a model: items of one kind, and who waits for their vectors."""

    items: Sequence[Item]
    done: "Future[Embedded]" = field(default_factory=Future)

    @property
    def kind(self) -> Kind:
        return kind_of(self.items[0])


class Worker:
    """One model, and what waits for it."""

    def __init__(self, name: str, queue: int, opened: Callable[[str], Embedder] = open_embedder) -> None:
        self.name, self.queue = name, queue
        self._open = opened
        self._embedder: Embedder | None = None
        self._loading = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._closed = False
        self._seconds = 1.0

    def loaded(self) -> Embedder:
        """The model, loaded if it is not; whoever asks meanwhile waits. Raises UsageError where it is not to be had."""
        with self._loading:
            if self._embedder is None:
                self._embedder = self._open(self.name)
            return self._embedder

    def usable(self) -> Embedder:
        """As ``loaded``. Raises Refused, 503, where it is not to be had: the mistake of whoever registered it, and not of the client."""
        try:
            return self.loaded()
        except UsageError as error:
            raise Refused(503, f"{self.name} cannot be loaded: {error}") from error

    def submit(self, items: Sequence[Item]) -> "Future[Embedded]":
        """Has them embedded, all texts or all images, at least one. Raises Refused, with 429, where too much waits already."""
        job = Job(items)
        with self._changed:
            if len(self._jobs) >= self.queue:
                waiting = counted(len(self._jobs), "request", "are")
                raise Refused(429, f"{self.name} is busy: {waiting} waiting for it", len(self._jobs) * self._seconds)
            self._jobs.append(job)
            paid = self._embedder is not None and self._embedder.account is not None
            if self._threads < (THREADS_OF_PAID if paid else 1):
                self._threads += 1
                # A daemon: a call that hangs is nothing to wait for when the service ends.
                threading.Thread(target=self._work, name=f"model {self.name}", daemon=True).start()
            self._changed.notify()
        return job.done

    def close(self) -> None:
        """Ends its threads, once they have done what they do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while jobs := self._next():
            began = time.monotonic()
            try:
                self._embed(jobs)
            except Exception as error:  # noqa: BLE001  whatever it is, those who wait are told, and the thread goes on
                for job in jobs:
                    if not job.done.done():
                        job.done.set_exception(error)
            self._seconds += (time.monotonic() - began - self._seconds) / 4

    def _next(self) -> list[Job]:
        """Jobs of one kind that nobody has given up; none when there will be no more."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return []
                taken: list[Job] = []
                while self._jobs and (not taken or self._fits(taken)):
                    job = self._jobs.popleft()
                    if job.done.set_running_or_notify_cancel():
                        taken.append(job)
                if taken:
                    return taken

    def _fits(self, taken: Sequence[Job]) -> bool:
        following = self._jobs[0]
        size = sum(len(job.items) for job in taken) + len(following.items)
        return following.kind == taken[0].kind and size <= TOGETHER

    def _embed(self, jobs: Sequence[Job]) -> None:
        embedder = self.usable()
        if jobs[0].kind not in embedder.takes:
            takes = listed([plural(2, kind) for kind in sorted(embedder.takes)])
            raise Refused(422, f"{self.name} takes {takes} only")
        made = embedder.embed([item for job in jobs for item in job.items])
        start = 0
        for job in jobs:
            rows = range(start, start := start + len(job.items))
            rejected = {row - rows.start: error for row, error in made.rejected.items() if row in rows}
            job.done.set_result(Embedded(made.vectors[rows.start : rows.stop], rejected))


class Models:
    """The workers of a service, by the names of their models."""

    def __init__(self, queue: int, opened: Callable[[str], Embedder] = open_embedder) -> None:
        """``opened`` opens a model by its name."""
        self._queue, self._open = queue, opened
        self._workers: dict[str, Worker] = {}
        self._lock = threading.Lock()

    def worker(self, name: str) -> Worker:
        with self._lock:
            if name not in self._workers:
                self._workers[name] = Worker(name, self._queue, self._open)
            return self._workers[name]

    def embed(self, name: str, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        """As ``Embedder.embed``, by the model of that name, for a thread that can wait: some of the items at a time, so that others
        get their turn. Raises Refused, and what the model raises."""
        worker, vectors, rejected = self.worker(name), [], dict[int, RowError]()
        for start in range(0, len(items), TOGETHER):
            made = worker.submit(items[start : start + TOGETHER]).result()
            vectors.append(made.vectors)
            rejected |= {start + row: error for row, error in made.rejected.items()}
            rows = [row for row in range(len(made.vectors)) if row not in made.rejected]
            if on_made and rows:
                on_made([start + row for row in rows], made.vectors[rows])
        return Embedded(np.concatenate(vectors), rejected)

    def close(self) -> None:
        with self._lock:
            for worker in self._workers.values():
                worker.close()
