"""HTTP for the test server: one thread, so that no request sees another half done. Keys, versions, faults on demand."""

import asyncio
import inspect
import time
import traceback
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from tests.helpers.qdrant_answers import HANDLERS
from tests.helpers.qdrant_checks import check_answer, request_body
from tests.helpers.qdrant_config import known
from tests.helpers.qdrant_engine import Refused
from tests.helpers.qdrant_routes import OPEN, READS, routed
from tests.helpers.qdrant_state import Request, Served
from tests.helpers.qdrant_validation import validate

LARGEST = 32 << 20
"""Bytes of a request's body that Qdrant takes."""
WAITING = ("create_snapshot", "delete_snapshot", "recover_from_snapshot")
"""Operations that wait unless they are told not to."""


@dataclass
class Fault:
    """The next ``times`` requests of a kind are late, or go wrong."""

    kind: str
    """An operation, ``write`` for every one that a read-only key may not, ``read``, or ``any``."""
    times: int
    status: int = 0
    """What is answered; 0 for the operation's own answer, -1 for none: the connection is closed."""
    message: str = ""
    applied: bool = False
    """The operation is done all the same."""
    delay: float = 0.0
    """Seconds before anything is done."""
    timed_out: bool = False
    """The write is done and ``wait_timeout`` answered."""

    def meets(self, operation: str) -> bool:
        kinds = {operation, "any", "read" if operation in READS else "write"}
        return self.times > 0 and self.kind in kinds


@dataclass
class Knobs:
    """What a test has set, and what was called: (operation, collection, status)."""

    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Keys:
    """The keys that are asked for, if any."""

    full: str | None = None
    read_only: str | None = None


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    kind: str = "application/json"

    def head(self, closing: bool) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"content-type: {self.kind}",
            f"content-length: {len(self.body)}",
            f"connection: {'close' if closing else 'keep-alive'}",
        ]
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            lines.append("retry-after: 1")
        return "\r\n".join([*lines, "", ""]).encode()


async def listen(served: Served, keys: Keys, port: int) -> asyncio.Server:
    """Serves on loopback; port 0 takes a free one."""
    knobs = Knobs()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (line := await reader.readline()).strip():
                method, target, _ = line.decode("latin-1").split(" ", 2)
                headers = {}
                while (line := await reader.readline()).strip():
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                raw = await body_of(reader, headers)
                answer = await answered(served, keys, knobs, method, target, headers, raw)
                if answer is None:
                    break
                closing = headers.get("connection", "").lower() == "close"
                writer.write(answer.head(closing) + answer.body)
                await writer.drain()
                if closing:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        except asyncio.CancelledError:
            pass  # the server ends; of a task that ends so Python 3.11 prints a traceback
        finally:
            writer.close()

    return await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 20)


async def body_of(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)
    return await reader.readexactly(int(headers.get("content-length", 0)))


async def answered(
    served: Served, keys: Keys, knobs: Knobs, method: str, target: str, headers: dict[str, str], raw: bytes
) -> Answer | None:
    """The answer to a request, or None where the connection is to be closed."""
    url = urlsplit(target)
    if url.path.startswith("/-/"):
        return turned(served, knobs, url.path, raw)
    route = routed(method, url.path, served.release)
    if route is None:
        return Answer(404)
    operation, names = route
    started = time.perf_counter()
    try:
        admitted(keys, operation, headers)
        status, result = await done(served, knobs, operation, names, parse_qs(url.query), raw)
    except Denied as denied:
        status, result = 401, denied
    except Refused as refused:
        status, result = refused.status, refused
    except Exception as error:  # noqa: BLE001  a fault of this server is told as one
        traceback.print_exc()
        status, result = 500, Refused(500, f"Service internal error: the test server failed: {error!r}")
    knobs.calls.append((operation, unquote(names.get("collection_name", "")), status))
    if status == -1:
        return None
    took = time.perf_counter() - started
    if isinstance(result, Denied):
        return Answer(status, str(result).encode(), "text/plain")
    if isinstance(result, Refused):
        return Answer(status, orjson.dumps({"status": {"error": result.message}, "time": took}))
    if isinstance(result, bytes):
        return Answer(status, result, "application/octet-stream")
    if operation == "root":
        return Answer(status, orjson.dumps(result))
    envelope = {"result": result, "status": "ok" if status == 200 else "accepted", "time": took}
    return Answer(status, orjson.dumps(envelope, option=orjson.OPT_SERIALIZE_NUMPY))


async def done(
    served: Served, knobs: Knobs, operation: str, names: dict[str, str], query: dict[str, list[str]], raw: bytes
) -> tuple[int, Any]:
    """Status and result of one operation, after the faults that meet it. Raises Refused."""
    fault = next((one for one in knobs.faults if one.meets(operation)), None)
    if fault is not None:
        fault.times -= 1
        await asyncio.sleep(fault.delay)
        if fault.status and not fault.applied:
            return fault.status, Refused(fault.status, fault.message)
    if operation in ("healthz", "livez", "readyz"):
        return 200, f"{operation} check passed".encode()
    if len(raw) > LARGEST:
        raise Refused(413, f"JSON payload ({len(raw)} bytes) is larger than allowed (limit: {LARGEST} bytes).")
    wait = query.get("wait", [str(operation in WAITING)])[0].lower() == "true"
    timeout = float(query["timeout"][0]) if "timeout" in query else None
    if timeout is not None and timeout < 1:
        raise Refused(422, "Validation error in query parameters: [timeout: value 0 invalid, must be 1 or larger]")
    body = known(request_body(operation, raw), served.release)
    validate(operation, body)
    path = {name: unquote(value) for name, value in names.items()}
    result = HANDLERS[operation](served, Request(operation, path, body, wait, timeout))
    if inspect.isawaitable(result):
        result = await result
    check_answer(operation, result)
    if fault is not None and fault.status:
        return fault.status, Refused(fault.status, fault.message)
    if fault is not None and fault.timed_out:
        result = result | {"status": "wait_timeout"}
    return (200, result) if wait or operation not in WAITING else (202, None)


class Denied(Exception):
    """No key, or a wrong one."""


def admitted(keys: Keys, operation: str, headers: dict[str, str]) -> None:
    """Raises Denied where the key is missing or wrong, and Refused for a write with a key that may only read."""
    if operation in OPEN or (keys.full is None and keys.read_only is None):
        return
    key = headers.get("api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if not key:
        raise Denied("Must provide an API key or an Authorization bearer token")
    if key == keys.full:
        return
    if key != keys.read_only:
        raise Denied("Invalid API key or JWT")
    if operation not in READS:
        raise Refused(403, "Forbidden: Global manage access is required")


def turned(served: Served, knobs: Knobs, path: str, raw: bytes) -> Answer:
    """The test's own requests: /-/faults, /-/state, /-/calls."""
    body = orjson.loads(raw or b"null")
    if path == "/-/faults":
        knobs.faults = [*knobs.faults, Fault(**body)] if body else []
    elif path == "/-/state":
        for name, value in body.items():
            setattr(served, name, value)
    elif path == "/-/calls" and body == "forget":
        knobs.calls.clear()
    return Answer(200, orjson.dumps(knobs.calls if path == "/-/calls" else None))
