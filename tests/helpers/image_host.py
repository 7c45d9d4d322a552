"""A host of images on this machine, which may be slow, refuse, send elsewhere, or never end."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class ImageHost:
    """What it answers at a path, from the first question on; the last answer goes on being given."""

    port: int = 0
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of each request, by names in lower case."""
    most: int = 0
    """Requests under way at once."""

    def put(self, path: str, *answers: Answer | bytes) -> str:
        """Answers so at ``path``; returns its URL."""
        self.answers[path] = [file(answer) if isinstance(answer, bytes) else answer for answer in answers]
        return f"{self.root}{path}"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def file(data: bytes, kind: str = "image/jpeg", status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(data))}.items():
            handler.send_header(name, value)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def status(number: int, **headers: str) -> Answer:
    """An answer without a picture."""
    return file(b"no picture here", "text/plain", number, **headers)


def elsewhere(url: str, number: int = 302) -> Answer:
    return status(number, location=url)


def raw(data: bytes) -> Answer:
    """These bytes alone, HTTP or not."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(data)

    return answer


def cut_off(data: bytes) -> Answer:
    """Says that there is more than it sends, and resets the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(len(data) + 100))
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(handler.connection.detach())  # others that hold the socket would keep it open

    return answer


def endless(chunk: bytes, pause: float = 0.0) -> Answer:
    """Sends it over and over, without a length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(chunk)
                handler.wfile.flush()
                time.sleep(pause)
        except OSError:
            return  # whoever asked has gone

    return answer


def dripping_head(pause: float) -> Answer:
    """Its headers come a byte at a time, and never to an end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            while True:
                handler.wfile.write(b"y")
                handler.wfile.flush()
                time.sleep(pause)
        except OSError:
            return

    return answer


def late(seconds: float, answer: Answer) -> Answer:
    def wait(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        answer(handler)

    return wait


def silent(seconds: float) -> Answer:
    """Takes the request, and says nothing for so long."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        time.sleep(seconds)

    return answer


@contextmanager
def image_host() -> Iterator[ImageHost]:
    host, lock, running = ImageHost(), threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            with lock:
                running[0] += 1
                host.most = max(host.most, running[0])
                host.asked.append(self.path)
                host.headers.append({name.lower(): value for name, value in self.headers.items()})
                given = host.answers.get(self.path, [status(404)])
                answer = given.pop(0) if len(given) > 1 else given[0]
            try:
                answer(self)
            finally:
                with lock:
                    running[0] -= 1

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    host.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
