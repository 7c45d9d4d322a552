"""What the routes have in common: the models, the database, and the threads that wait for it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from flows.client import Client
from flows.service.known import known_models
from flows.service.options import Options
from flows.service.problems import Refused
from flows.service.workers import Models, Worker
from tasks.base.errors import NotFound, TransientError
from tasks.base.words import counted, listed, plural
from tasks.embedders.interface import Kind
from tasks.embedders.naming import parse_model
from tasks.runs.database import Connection, refusable
from tasks.stores.postgres.idle import Connections

T = TypeVar("T")
logger = logging.getLogger("vecferry")
THREADS = 8
"""Requests that use the database alone at a time; twice as many may wait for models beside them."""
WAIT = 1.0
"""Seconds after which to ask again where all threads are taken."""


class Lane:
    """Threads, and a bound for what waits for one of them."""

    def __init__(self, name: str, threads: int, queue: int) -> None:
        self.name, self.queue = name, queue
        self._threads = ThreadPoolExecutor(threads, name)
        self._places = threading.Semaphore(threads + queue)

    async def run(self, call: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise Refused(429, f"{self.name} is busy: {counted(self.queue, 'request', 'are')} waiting for it", WAIT)
        future = self._threads.submit(call)
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass
class Service:
    """One process of the service, from its start to its end."""

    options: Options
    models: Models
    connections: Connections
    client: Client

    @cached_property
    def _database(self) -> "Lane":
        return Lane("the database", THREADS, self.options.queue)

    @cached_property
    def _writing(self) -> "Lane":
        return Lane("the service", 2 * THREADS, self.options.queue)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, which waits for the database alone. Raises what it raises, and Refused, 429, where too much waits
        already."""
        return await self._database.run(call)

    async def with_models(self, call: Callable[[], T]) -> T:
        """The same, of what waits for a model too: searches by vectors go on beside it."""
        return await self._writing.run(call)

    async def asked(self, question: Callable[[Connection], T]) -> T:
        """What the database answers. Raises TransientError while it is gone."""

        def ask() -> T:
            try:
                with refusable("ask the database"), self.connections.connection("vecferry serve") as connection:
                    connection.execute(f"SET statement_timeout = {round(self.options.timeout * 1000)}")
                    return question(connection)
            except TransientError as error:  # its own words say where the database is, to whoever asks
                logger.warning("%s", error)
                raise TransientError("lost PostgreSQL: ask again once it is back") from error

        return await self.in_thread(ask)

    async def model(self, name: str) -> Worker:
        """The model of that name, in full or without its provider. Raises NotFound, with those that there are."""
        named = list(self.options.models)
        if not (matching := _matching(name, named)):
            named += [model.name for model in await self.asked(known_models)]
            matching = _matching(name, named)
        if not matching:
            raise NotFound(f"no model is called {name!r} here; available: {listed(sorted(set(named))) or 'none'}")
        return self.models.worker(_only(matching, f"several models are called {name!r}"))

    async def default_model(self, kind: Kind) -> Worker:
        """The model that texts or images are embedded by where none is named: of those that the service was started with, the
        first that takes them; else the one that the database says is active. Raises NotFound where there is none."""
        for name in self.options.models:
            if kind in self.models.worker(name).loaded().takes:
                return self.models.worker(name)
        active = [m.name for m in await self.asked(known_models) if m.active and m.kind == kind]
        if not active:
            raise NotFound(
                f"no model is active for {plural(2, kind)}: name one in the request, or start the service with --model NAME"
            )
        return self.models.worker(_only(active, f"several models are active for {plural(2, kind)}"))

    def close(self) -> None:
        """Whatever is under way is left to end by itself."""
        self.models.close()
        self._database.close()
        self._writing.close()
        self.connections.close()
        self.client.close()


def bare(name: str) -> str:
    """What a model is called without its provider, folder, revision and options."""
    return parse_model(name).model.rstrip("/").rpartition("/")[2]


def _matching(name: str, named: Sequence[str]) -> list[str]:
    if name in named:
        return [name]
    return [one for one in named if name in (parse_model(one).model, bare(one))]


def _only(names: Sequence[str], otherwise: str) -> str:
    different = sorted(set(names))
    if len(different) > 1:
        raise Refused(409, f"{otherwise}: {listed(different)}; name one of them in full")
    return different[0]
