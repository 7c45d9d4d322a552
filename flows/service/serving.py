"""The process of the service: what it needs before the first request, and its end."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from flows.client import Client
from flows.service.app import application
from flows.service.connections import cutting_off
from flows.service.options import Options, bearer_token
from flows.service.service import Service
from flows.service.workers import Models
from tasks.base import memory
from tasks.base.errors import UsageError
from tasks.runs.database import database_url
from tasks.serving.purchasing import Allowance, Purchasing
from tasks.stores.postgres.idle import Connections

CONNECTIONS = 512
"""Clients that may be connected at a time; the next one is refused with 503."""
CONNECTIONS_OF_DATABASE = 16
"""Of searches and documents at most, beside those of what only asks for models."""
GRACE = 5
"""Seconds that requests under way have when the service ends."""


def serve(options: Options, say: Callable[[str], None]) -> None:
    """Serves until a KeyboardInterrupt. ``say`` is told when requests can come. Raises UsageError where it cannot begin: the port is
    taken, a model is not to be had, there is no database, or no token where one is needed."""
    token = bearer_token(options)
    with _bound(options) as listener, opened(options) as service:
        whom = " to who bears the token" if token else ""
        server = _Server(
            configuration(service, token), lambda: say(f"serving on {options.address}{whom}; Ctrl-C ends it")
        )
        memory.bounded()
        server.run(sockets=[listener])  # uvicorn raises the signal anew when what was under way is done


@contextmanager
def opened(options: Options) -> Iterator[Service]:
    """The service with its models loaded and its database reached; closed afterwards. Raises UsageError."""
    connections = Connections(database_url(options.database), kept=True)
    allowance = Allowance("serve", options.budget_usd, a_day=True)
    models = Models(options.queue, Purchasing(partial(connections.connection, "vecferry serve"), allowance).open)
    client = Client(options.database, models.embed, options.roles, CONNECTIONS_OF_DATABASE, options.timeout)
    service = Service(options, models, connections, client)
    try:
        for name in options.models:
            service.models.worker(name).loaded()
        yield service
    finally:
        service.close()


def configuration(service: Service, token: str | None) -> uvicorn.Config:
    """How uvicorn is to serve it."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # what clients do wrong is told to them
    return uvicorn.Config(
        application(service, token),
        http=cutting_off(service.options.timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


@contextmanager
def _bound(options: Options) -> Iterator[socket.socket]:
    """A socket that has the address and does not listen yet. Raises UsageError where it cannot have it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"--host {options.host} is not an address of this machine: {error.strerror}") from error
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise UsageError(
                f"{options.address} cannot be served: {error.strerror}; choose another port with --port"
            ) from error
        yield listener
