"""Connections to the hosts of pictures: only to addresses that may be asked, and none for longer than its request may take."""

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from tasks.contents.image.addresses import Allowed, Resolve, resolve

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 15.0
"""Until a connection is made; until the next byte comes."""


class Refused(Exception):
    """The host leads to no address that may be asked."""


class TooSlow(Exception):
    """The request has taken all its time."""


class Clock(threading.local):
    """When the request of this thread must be over."""

    until = float("inf")

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """What goes on inside takes so long at most. Raises TooSlow."""
        self.until = time.monotonic() + seconds
        try:
            yield
        finally:
            self.until = float("inf")

    def cut(self, timeout: float | None) -> float | None:
        """The timeout, cut to what is left."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TooSlow
        return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    """A server that sends a byte now and then answers each read in time, and none of its requests."""

    def __init__(self, stream: httpcore.NetworkStream, clock: Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.cut(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._clock.cut(timeout)), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Makes a connection to the address that was judged: asked for the name, another could be given the second time."""

    def __init__(self, allowed: Allowed, clock: Clock, resolver: Resolve) -> None:
        self._allowed, self._clock, self._resolve = allowed, clock, resolver
        self._real = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        refusals = {address: self._allowed.refusal(host, port, address) for address in self._resolve(host, port)}
        failure: Exception = Refused(next(iter(refusals.values()), None) or f"{host} leads to no address")
        for address, refusal in refusals.items():
            if refusal is None:
                try:
                    stream = self._real.connect_tcp(
                        address, port, self._clock.cut(timeout), local_address, socket_options
                    )
                    return _Stream(stream, self._clock)
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                    failure = error
        raise failure


def pool(allowed: Allowed, clock: Clock, connections: int, resolver: Resolve = resolve) -> httpcore.ConnectionPool:
    """Connections that requests share, so many at once. A proxy of the environment is not used: it would ask whom it likes."""
    return httpcore.ConnectionPool(
        ssl_context=httpx.create_ssl_context(),
        max_connections=connections,
        keepalive_expiry=15.0,
        network_backend=_Backend(allowed, clock, resolver),
    )
