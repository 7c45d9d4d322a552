"""https: the certificate is judged by the name, though the connection is made to an address."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tasks.contents.image.addresses import Allowed
from tasks.contents.image.patience import Patience
from tasks.contents.image.web import Web
from tasks.embedders.interface import RowError
from tests.helpers.certificates import certificate


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server that is images.example, which this process trusts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"picture")

        def log_message(self, *_: object) -> None:
            pass

    path = certificate(tmp_path, "images.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("name", "trusted"), [("images.example", True), ("other.example", False)])
def test_a_certificate_is_judged_by_its_name(port: int, name: str, trusted: bool) -> None:
    """One of another name is the row's own error, and not tried again."""
    resolved = list[str]()

    def resolver(host: str, port: int) -> list[str]:
        resolved.append(host)
        return ["127.0.0.1"]

    web = Web(Allowed((f"{name}:{port}",)), 1000, 4, Patience(3, 0.001), resolver=resolver)
    result = web.get("'a.jpg'", httpx.URL(f"https://{name}:{port}/a.jpg"))
    if trusted:
        assert result == b"picture"
    else:
        assert isinstance(result, RowError)
        assert result.kind == "untrusted"
    assert resolved == [name]
    web.close()
