"""How a server of the embeddings API is reached: by the proxy, the certificates and the account that the environment names."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest

from tasks.base.errors import UsageError
from tasks.embedders.openai.address import address_of
from tasks.embedders.openai.sending import Answer, Failure, Sender, Shape
from tests.helpers.certificates import certificate
from tests.helpers.openai_server import Asked, OpenAIServer, Reply, openai_server
from tests.helpers.servers import free_port

ELSEWHERE = "http://models.invalid/v1"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as started:
        yield started


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no proxy and no account."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def sent(base_url: str, key: str = "sk-test") -> Answer | Failure:
    return Sender(address_of(base_url, "m", None), key, "m").send(["a text"], Shape(), 5.0)


def test_a_proxy_of_the_environment_is_asked(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its user and password; and not for a host that the environment excepts."""
    asked: list[Asked] = []
    server.before = asked.append
    host = server.base_url.removeprefix("http://").removesuffix("/v1")
    monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@{host}")
    assert isinstance(sent(ELSEWHERE), Answer)
    assert asked[-1].path == f"{ELSEWHERE}/embeddings"
    assert asked[-1].headers["Proxy-Authorization"] == "Basic bWU6cEBzcw=="
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{free_port()}")
    assert isinstance(sent(server.base_url), Failure)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert isinstance(sent(server.base_url), Answer)


def test_a_proxy_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent past a proxy that cannot be used."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageError, match="a proxy for http of the kind 'socks5'"):
        sent(ELSEWHERE)


def test_the_account_of_the_environment_is_told(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Organization, project and headers of one's own, as OpenAI's client takes them."""
    asked: list[Asked] = []
    server.before = asked.append
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: search\nX-Trace: a:b")
    assert isinstance(sent(server.base_url), Answer)
    shown = {name: asked[-1].headers[name] for name in ("OpenAI-Organization", "OpenAI-Project", "X-Team", "X-Trace")}
    assert shown == {"OpenAI-Organization": "org-1", "OpenAI-Project": "proj-1", "X-Team": "search", "X-Trace": "a:b"}
    assert asked[-1].headers["Authorization"] == "Bearer sk-test"


def test_a_server_that_has_moved_is_followed(server: OpenAIServer) -> None:
    """The same request goes where a redirect points; the key does not go to another host."""
    asked: list[Asked] = []

    def before(request: Asked) -> Reply | None:
        asked.append(request)
        old = request.path == "/old/embeddings"
        there = server.base_url.replace("127.0.0.1", "localhost")
        return (308, {"Location": f"{there}/embeddings"}, b"") if old else None

    server.before = before
    assert isinstance(sent(server.base_url.removesuffix("/v1") + "/old"), Answer)
    first, second = asked
    assert second.body == first.body
    assert "Authorization" in first.headers
    assert "Authorization" not in second.headers


def test_a_key_that_no_header_carries_is_not_shown() -> None:
    """One that was read with the end of its line, for instance."""
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds a character that no key has") as refused:
        sent(ELSEWHERE, "sk-secret\nmore")
    assert "secret" not in str(refused.value)


def test_the_certificates_of_the_environment_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that only a company's own authority vouches for is asked with SSL_CERT_FILE, and not without."""
    answers = OpenAIServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
            content = answers.answer(body, "")[2]
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    path = certificate(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as https:
        https.socket = context.wrap_socket(https.socket, server_side=True)
        thread = threading.Thread(target=https.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        base_url = f"https://localhost:{https.server_address[1]}/v1"
        refused = sent(base_url)
        assert isinstance(refused, Failure)
        assert "certificate verify failed" in refused.words
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert isinstance(sent(base_url), Answer)
        https.shutdown()
        thread.join()
