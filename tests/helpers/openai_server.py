"""A real HTTP server that speaks OpenAI's embeddings API, limits its callers, and fails where a test says so.

``python -m tests.helpers.openai_server [--requests N] [--tokens N] [--delay S]`` runs it by itself and prints its base URL.
"""

import argparse
import base64
import binascii
import math
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import orjson

_POOL = 256
_TAIL_NORM = 0.8  # what is left to the three leading components, which tell texts of one pool row apart


@dataclass(frozen=True)
class Call:
    """One request as it was answered."""

    at: float
    ended: float
    status: int
    inputs: Sequence[str]
    tokens: int
    body: Mapping[str, Any]
    key: str
    faulty: bool
    """Whether a planted fault concerned it."""
    path: str = ""


@dataclass
class Limit:
    """Requests or tokens a minute: a bucket refilled steadily, as OpenAI's, or a window of a minute."""

    per_minute: float
    fixed: bool = False
    level: float = -1.0
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.level = self.per_minute if self.level < 0 else self.level

    def refill(self, now: float) -> None:
        if self.fixed:
            if now - self.at >= 60:
                self.level, self.at = self.per_minute, now
        else:
            self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / 60)
            self.at = now

    def headers(self, kind: str, now: float) -> dict[str, str]:
        reset = self.at + 60 - now if self.fixed else (self.per_minute - self.level) * 60 / self.per_minute
        minutes, left = divmod(reset, 60)
        shown = f"{int(minutes)}m{left:.3f}s" if minutes else f"{int(left * 1000)}ms" if left < 1 else f"{left:.3f}s"
        return {
            f"x-ratelimit-limit-{kind}": str(int(self.per_minute)),
            f"x-ratelimit-remaining-{kind}": str(max(0, int(self.level))),
            f"x-ratelimit-reset-{kind}": shown,
        }


@dataclass
class Fault:
    """What happens to ``times`` of the requests, after the first ``after`` that it concerns."""

    status: int | None = None
    code: str | None = None
    message: str = "planted by the test"
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    """Only requests with an input that holds this; None for all."""
    spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
    """Changes the rows of an answer."""
    delay: float = 0.0
    cut: bool = False
    """The connection is cut in the middle of the answer."""
    after: int = 0
    times: float = math.inf


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        given = self.body["input"]
        return given if isinstance(given, list) else [given]


Reply = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""
Before = Callable[[Asked], Reply | None]


@dataclass
class OpenAIServer:
    """Answers every request until told otherwise. A key ending in ``-wrong`` is refused."""

    base_url: str = ""
    dimensions: int = 1536
    max_inputs: int = 2048
    max_tokens: int = 300_000
    max_input_tokens: int = 8192
    too_many: str = "batch size {n} > maximum allowed batch size {most}"
    takes_base64: bool = True
    takes_dimensions: bool = True
    reports: bool = True
    """Whether answers carry rate-limit headers and usage."""
    delay: float = 0.0
    retry_after: str | None = None
    """The header that a rate-limit 429 carries: ``retry-after`` or ``retry-after-ms``."""
    tokens_of: Callable[[str], int] = lambda text: max(1, -(-len(text.encode()) // 4))
    requests: Limit | None = None
    tokens: Limit | None = None
    before: "Before | None" = None
    """What another kind of server answers, or a gateway in front of this one; None where it has nothing to say."""
    faults: list[Fault] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def limit(self, requests: float, tokens: float, full: bool = True, fixed: bool = False) -> None:
        """From now on so many a minute; ``full`` when a minute's worth is there at the start."""
        self.requests = Limit(requests, fixed, requests if full else 1)
        self.tokens = Limit(tokens, fixed, tokens if full else 100)

    def plant(self, **fault: Any) -> None:
        """Adds a Fault."""
        self.faults.append(Fault(**fault))

    def heal(self) -> None:
        """No more faults."""
        self.faults.clear()

    def answered(self, status: int = 200) -> list[Call]:
        """The calls that got ``status``, in order; the probe is one."""
        with self._lock:
            return [call for call in self.calls if call.status == status]

    def vector(self, text: str, dimensions: int | None = None) -> np.ndarray:
        """The float32[dimensions] that this server gives for ``text``."""
        return np.frombuffer(base64.b64decode(_encoded(text, dimensions or self.dimensions)), "<f4")

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The float32[n, dimensions] that this server gives for ``texts``."""
        return np.array([self.vector(text) for text in texts])

    def answer(self, body: dict[str, Any], key: str) -> tuple[int, dict[str, str], bytes, Fault | None, int]:
        """Status, headers, body, the fault that concerns it, and the tokens counted."""
        texts: list[str] = body["input"] if isinstance(body["input"], list) else [body["input"]]
        counted = [self.tokens_of(text) for text in texts]
        total = sum(counted)
        fault = self._fault(texts)
        status, problem, headers = 200, ("", ""), {}
        if key.endswith("-wrong"):
            status, problem = 401, ("invalid_api_key", f"Incorrect API key provided: {key}")
        elif fault and fault.status:
            status, problem, headers = fault.status, (fault.code or "", fault.message), dict(fault.headers)
        elif refused := self._refused(body, texts, counted):
            status, problem = refused
        else:
            headers, within = self._count(total)
            if not within:
                status, problem = 429, ("rate_limit_exceeded", "Rate limit reached")
        if status != 200:
            error = {"message": problem[1], "type": problem[0] or "invalid_request_error", "code": problem[0] or None}
            return status, headers, orjson.dumps({"error": {**error, "param": None}}), fault, total
        dimensions = body.get("dimensions") or self.dimensions
        plain = body.get("encoding_format") != "base64"
        usage = orjson.dumps({"prompt_tokens": total, "total_tokens": total}) if self.reports else b"null"
        if plain or (fault and fault.spoil):
            rows = [
                {
                    "index": place,
                    "embedding": self.vector(text, dimensions).tolist()
                    if plain
                    else _encoded(text, dimensions).decode(),
                }
                for place, text in enumerate(texts)
            ]
            data = orjson.dumps(fault.spoil(rows) if fault and fault.spoil else rows)
        else:
            # Put together once: this server must not be the limit of who asks it.
            parts = [b'{"object":"list","data":[']
            for place, text in enumerate(texts):
                parts += (b'{"object":"embedding","index":%d,"embedding":"' % place, *_halves(text, dimensions), b'"},')
            parts[-1] = b'"}],"usage":%s}' % usage
            return 200, headers, b"".join(parts), fault, total
        return 200, headers, b'{"object":"list","data":%s,"usage":%s}' % (data, usage), fault, total

    def _fault(self, texts: Sequence[str]) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times <= 0 or (fault.text is not None and not any(fault.text in text for text in texts)):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _refused(
        self, body: dict[str, Any], texts: list[str], counted: list[int]
    ) -> tuple[int, tuple[str, str]] | None:
        if not self.takes_base64 and body.get("encoding_format") == "base64":
            return 422, ("", "encoding_format: unknown variant base64")
        if not self.takes_dimensions and "dimensions" in body:
            return 400, ("", "dimensions: extra fields not permitted")
        if len(texts) > self.max_inputs:
            return 422, ("", self.too_many.format(n=len(texts), most=self.max_inputs))
        if "" in texts:
            return 400, ("", "'$.input' is invalid. Please check the API reference")
        if most := max(counted) > self.max_input_tokens and max(counted):
            return 400, ("", f"This model's maximum context length is {self.max_input_tokens} tokens, requested {most}")
        if sum(counted) > self.max_tokens:
            return 400, (
                "max_tokens_per_request",
                f"Requested {sum(counted)} tokens, max {self.max_tokens} tokens per request",
            )
        return None

    def _count(self, tokens: int) -> tuple[dict[str, str], bool]:
        if not self.requests or not self.tokens:
            return {}, True
        with self._lock:
            now = time.monotonic()
            self.requests.refill(now)
            self.tokens.refill(now)
            within = self.requests.level >= 1 and self.tokens.level >= tokens
            if within:
                self.requests.level -= 1
                self.tokens.level -= tokens
            headers = self.requests.headers("requests", now) | self.tokens.headers("tokens", now)
            if not within and self.retry_after:
                lacking = max((1 - self.requests.level) / self.requests.per_minute, 0.0) * 60
                lacking = max(lacking, (tokens - self.tokens.level) / self.tokens.per_minute * 60)
                headers[self.retry_after] = (
                    str(math.ceil(lacking * 1000)) if self.retry_after.endswith("-ms") else f"{lacking:.2f}"
                )
        return (headers if self.reports else {}), within


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in another order."""
    return random.Random(len(rows)).sample(rows, len(rows))


def with_vector(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Spoils the last row's vector."""

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        value = rows[-1]["embedding"]
        vector = np.frombuffer(base64.b64decode(value), "<f4") if isinstance(value, str) else np.array(value, "<f4")
        return [
            *rows[:-1],
            {**rows[-1], "embedding": base64.b64encode(change(vector.copy()).astype("<f4").tobytes()).decode()},
        ]

    return spoil


_pools: dict[int, list[bytes]] = {}


def _pool(dimensions: int) -> list[bytes]:
    """Base64 of all but three components, of norm _TAIL_NORM: encoding them anew for each text would be the limit."""
    if dimensions not in _pools:
        rows = np.random.default_rng(dimensions).standard_normal((_POOL, dimensions - 3))
        rows *= _TAIL_NORM / np.linalg.norm(rows, axis=1, keepdims=True)
        _pools[dimensions] = [base64.b64encode(row.astype("<f4").tobytes()) for row in rows]
    return _pools[dimensions]


def _encoded(text: str, dimensions: int) -> bytes:
    """Base64 of a unit vector."""
    return b"".join(_halves(text, dimensions))


def _halves(text: str, dimensions: int) -> tuple[bytes, bytes]:
    """The same in two parts. Twelve bytes encode to sixteen characters without padding, so they can be joined."""
    row, a, b = struct.unpack("<QII", blake2b(text.encode(), digest_size=16).digest())
    up, around = a / 2**31 - 1.0, b / 2**31 * math.pi
    flat, head = math.sqrt(1 - up * up), math.sqrt(1 - _TAIL_NORM**2)
    lead = struct.pack("<3f", head * up, head * flat * math.cos(around), head * flat * math.sin(around))
    return binascii.b2a_base64(lead, newline=False), _pool(dimensions)[row % _POOL]


@contextmanager
def openai_server(**settings: Any) -> Iterator[OpenAIServer]:
    """A server on the loopback interface, with the fields of OpenAIServer as given."""
    server = OpenAIServer(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            started = time.monotonic()
            body = orjson.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            key = self.headers.get("authorization", "").removeprefix("Bearer ")
            early = server.before(Asked(self.path, self.headers, body)) if server.before else None  # type: ignore[arg-type]
            status, headers, content, fault, tokens = (*early, None, 0) if early else server.answer(body, key)
            if delay := server.delay + (fault.delay if fault else 0.0):
                time.sleep(delay)
            with server._lock:
                texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
                rest = {name: value for name, value in body.items() if name != "input"}
                server.calls.append(
                    Call(started, time.monotonic(), status, texts, tokens, rest, key, bool(fault), self.path)
                )
            lines = [f"HTTP/1.1 {status} planted", "Content-Type: application/json", f"Content-Length: {len(content)}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            head = ("\r\n".join(lines) + "\r\n\r\n").encode()
            try:
                if fault and fault.cut:
                    self.wfile.write(head + content[: len(content) // 2])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.wfile.write(head)
                self.wfile.write(content)
            except OSError:  # the client gave up on a slow answer
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=float, help="a minute")
    parser.add_argument("--tokens", type=float, help="a minute")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    asked = parser.parse_args()
    with openai_server(delay=asked.delay) as server:
        if asked.requests and asked.tokens:
            server.limit(asked.requests, asked.tokens)
        print(server.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
