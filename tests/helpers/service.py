"""The real HTTP service, in a thread of the tests, on a port of its own."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import uvicorn

from flows.service.options import Options, bearer_token
from flows.service.service import Service
from flows.service.serving import configuration, opened


@dataclass(frozen=True)
class Running:
    """A service that takes requests."""

    service: Service
    port: int
    client: httpx.Client
    """With the token, where there is one."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connected(self) -> socket.socket:
        """A connection, for requests that no client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def running(options: Options) -> Iterator[Running]:
    """The service, as ``vecferry serve`` runs it, until the body ends."""
    token = bearer_token(options)
    with socket.create_server(("127.0.0.1", 0)) as listener, opened(options) as service:
        server = uvicorn.Server(configuration(service, token))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until = time.monotonic() + 60
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < until
                time.sleep(0.01)
            port: int = listener.getsockname()[1]
            headers = {"authorization": f"Bearer {token}"} if token else {}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
                yield Running(service, port, client)
        finally:
            server.should_exit = True
            thread.join(30)


def read_all(connection: socket.socket) -> str:
    """What the service sends until it closes the connection."""
    read = b""
    while part := connection.recv(65536):
        read += part
    return read.decode()
