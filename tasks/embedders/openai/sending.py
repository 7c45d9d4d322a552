"""One request over HTTP and its answer. It is never repeated here: who asks decides that."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlencode

import orjson
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, TimeoutError

from tasks.base.retry_after import retry_after
from tasks.embedders.openai import connections
from tasks.embedders.openai.address import Address
from tasks.embedders.openai.answers import Verdict, classify, words_of

Encoding = Literal["base64", "float"] | None
ENCODINGS: tuple[Encoding, ...] = ("base64", "float", None)
CONCURRENCY = 8
"""Requests under way at once; also the most that can still be under way when a fatal answer comes."""


@dataclass(frozen=True)
class Shape:
    """How a model is asked: what differs between compatible servers."""

    encoding: Encoding = "base64"
    """None where the field is left out."""
    dimensions: int | None = None
    """As sent; None where it is not."""

    def fields(self) -> dict[str, Any]:
        named = {"encoding_format": self.encoding, "dimensions": self.dimensions}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Answer:
    """The server has answered with 200."""

    content: bytes
    headers: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """It has refused, or has not answered."""

    verdict: Verdict
    words: str
    """The server's own."""
    status: int = 0
    param: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    late: bool = False
    """Whether somebody's patience has ended: ours, or that of a gateway."""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait."""
        return retry_after(self.headers)


@dataclass(frozen=True)
class Sender:
    """Posts to one address. Threads share it."""

    address: Address
    key: str = field(repr=False)
    model: str

    def send(self, texts: Sequence[str], shape: Shape, timeout: float) -> Answer | Failure:
        """``timeout`` is in seconds without a byte of answer."""
        began = time.monotonic()
        body = orjson.dumps({"model": self.model, "input": list(texts), **shape.fields()})
        patience = urllib3.Timeout(connect=timeout, read=timeout)
        try:
            answer = self._pool.request("POST", self._url, body=body, headers=self._headers, timeout=patience)
        except HTTPError as error:
            cause = (error.reason if isinstance(error, MaxRetryError) else None) or error
            if isinstance(cause, TimeoutError) and not isinstance(cause, NewConnectionError):
                return Failure("transient", f"no answer within {timeout:g} s", late=True)
            return Failure("transient", f"Connection error. {cause.__cause__ or cause}")
        if 200 <= answer.status < 300:
            return Answer(answer.data, answer.headers, time.monotonic() - began)
        return _refusal(answer)

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        return connections.pool(self.address.base_url, CONCURRENCY)

    @cached_property
    def _headers(self) -> dict[str, str]:
        return connections.headers(self.address, self.key)

    @cached_property
    def _url(self) -> str:
        query = f"?{urlencode(self.address.query)}" if self.address.query else ""
        return f"{self.address.base_url.rstrip('/')}/embeddings{query}"


def _refusal(answer: urllib3.BaseHTTPResponse) -> Failure:
    status, body = answer.status, words_of(answer.data.decode(errors="replace"))
    verdict = classify(status, body.code, body.message, body.param, body.page)
    words = f"{status} {body.code if body.code != str(status) else ''} {body.message}"
    return Failure(verdict, " ".join(words.split()), status, body.param, answer.headers, status in (408, 504, 524))
