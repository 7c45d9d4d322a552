"""Qdrant's REST API for points. The client library makes a model of every point and a Python float of every component, which
takes longer than the server needs to send them; here they go from the answer's text into arrays, and back.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import simdjson

from tasks.base.errors import TransientError
from tasks.stores.qdrant.errors import lost, refusal

LIMITED = httpx.codes.TOO_MANY_REQUESTS
TRIES = 5
"""Of a call that a rate limit refuses, each after the pause that the server asks for."""
LONGEST_PAUSE = 30.0

_THREAD = threading.local()
"""A parser a thread: its memory is kept, since mapping that much anew for each page takes longer than parsing it."""


@dataclass(frozen=True)
class Rest:
    """A session with a server, for any thread."""

    session: httpx.Client
    place: str
    """The server's URL, for messages."""

    def get(self, path: str) -> Any:
        """The JSON at ``path``: its ``result``, or all of it where it has none."""
        answer = self._read(self.ask("GET", path), orjson.loads)
        return answer.get("result", answer)

    def send(self, method: str, path: str, body: Mapping[str, Any], **parameters: Any) -> Any:
        """Sends JSON, numpy arrays among it, and returns the ``result``."""
        data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return self._read(self.ask(method, path, data, **parameters), orjson.loads)["result"]

    def points(self, path: str, body: Mapping[str, Any]) -> Any:
        """The ``result`` of a question, parsed without being copied: it is of use until this thread's next one."""
        data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return self._read(self.ask("POST", path, data), parsed)["result"]

    def ask(self, method: str, path: str, body: bytes | None = None, **parameters: Any) -> bytes:
        """The body of the answer. Raises what tasks.stores.qdrant.errors makes of a refusal."""
        for tries in range(1, TRIES + 1):
            try:
                answer = self.session.request(method, path, content=body, params=parameters)
            except httpx.HTTPError as error:
                raise lost(self.place, error) from error
            if answer.status_code != LIMITED or tries == TRIES:
                break
            time.sleep(_pause(answer, tries))
        if answer.is_success:
            return answer.content
        raise refusal(self.place, answer.status_code, answer.content)

    def _read(self, content: bytes, parse: Callable[[bytes], Any]) -> Any:
        try:
            answer = parse(content)
            if not isinstance(answer, dict | simdjson.Object):
                raise ValueError(f"it begins with {content[:40]!r}")
        except ValueError as error:
            raise lost(self.place, error) from error
        return answer


def connect(url: str, key: str | None, seconds: float) -> Rest:
    """A session with the server at ``url``; nothing is asked yet. ``key`` is the secret itself."""
    session = httpx.Client(
        base_url=f"{url}/",
        headers={"Content-Type": "application/json", **({"api-key": key} if key else {})},
        timeout=httpx.Timeout(seconds, connect=10),
        event_hooks={"response": [_release]},
    )
    return Rest(session, url)


def parsed(content: bytes) -> Any:
    """The JSON, to be used up before this thread's next one."""
    try:
        return _THREAD.parser.parse(content)
    except (AttributeError, RuntimeError):  # none yet, or an error's traceback still holds the last answer
        _THREAD.parser = simdjson.Parser()
        return _THREAD.parser.parse(content)


def completed(place: str, result: Mapping[str, Any]) -> None:
    """Raises TransientError where a write was taken and is not done: ``acknowledged`` and ``wait_timeout`` are no success."""
    if (status := result.get("status")) != "completed":
        raise TransientError(f"Qdrant at {place} did not complete a write in time: its status is {status}")


def _pause(answer: httpx.Response, tries: int) -> float:
    try:
        asked = float(answer.headers.get("retry-after", ""))
    except ValueError:
        asked = 0.5 * 2**tries
    return min(max(asked, 0.0), LONGEST_PAUSE)


def _release(response: httpx.Response) -> None:
    # An httpx response and its stream refer to each other, so that its bytes would stay until Python looks for cycles among
    # its oldest objects.
    response.read()
    response.stream = httpx.ByteStream(b"")
