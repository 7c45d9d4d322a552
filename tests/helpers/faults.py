"""A small HTTP proxy that stands before a real server and answers in its place where a test says so."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Faults:
    """Passes everything on until told to refuse."""

    port: int = 0
    """Where the proxy listens, on the loopback interface."""
    refused: list[str] = field(default_factory=list)
    """The paths of the requests that were refused."""
    _path: str | None = None
    _text: bytes = b""
    _status: int = 503

    def refuse(self, path: str, text: str, status: int = 503) -> None:
        """Answers requests whose path ends with ``path`` and whose body holds ``text`` with ``status``."""
        self._path, self._text, self._status = path, text.encode(), status

    def heal(self) -> None:
        """Passes everything on again."""
        self._path = None

    def status_for(self, path: str, body: bytes) -> int | None:
        """The status to refuse this request with, or None."""
        if self._path is None or not path.endswith(self._path) or self._text not in body:
            return None
        self.refused.append(path)
        return self._status


@contextmanager
def before(upstream: int) -> Iterator[Faults]:
    """A proxy before the server on port ``upstream`` of the loopback interface."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if status := faults.status_for(self.path, body):
                self._answer(status, [], b"planted by the test")
                return
            connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=30)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                self._answer(answer.status, answer.getheaders(), answer.read())
            finally:
                connection.close()

        do_GET = do_POST = do_PUT = do_DELETE = pass_on

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    faults.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
