"""https: the certificate is judged by the name, though the connection is made to an address."""

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.contents.image.addresses import Allowed
from tasks.contents.image.patience import Patience
from tasks.contents.image.web import Web
from tasks.embedders.interface import RowError


def certificate(folder: Path, name: str) -> Path:
    """Of the name, signed by itself, with its key."""
    key, subject = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
    )
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    return path


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
