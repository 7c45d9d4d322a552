"""One request over HTTP and its answer, by the official client with its own retries off: it repeats every 429, an exhausted
quota too."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from tasks.base.retry_after import retry_after
from tasks.embedders.openai.address import Address
from tasks.embedders.openai.answers import Verdict, classify, words_of

Encoding = Literal["base64", "float"] | None
ENCODINGS: tuple[Encoding, ...] = ("base64", "float", None)


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
        import openai

        began = time.monotonic()
        try:
            # Not by the client's own method: that looks through every text for files to send along, makes a list of
            # Python floats of each vector, and always sends an encoding_format.
            answer = self.client.post(
                "/embeddings",
                cast_to=object,
                body={"model": self.model, "input": list(texts), **shape.fields()},
                options={"headers": self._headers, "timeout": timeout},
            )
        except openai.APIStatusError as error:
            status, body = error.status_code, words_of(error.response.text)
            verdict = classify(status, body.code, body.message, body.param, body.page)
            words = f"{status} {body.code if body.code != str(status) else ''} {body.message}"
            late = status in (408, 504, 524)
            return Failure(verdict, " ".join(words.split()), status, body.param, error.response.headers, late)
        except openai.APITimeoutError:
            return Failure("transient", f"no answer within {timeout:g} s", late=True)
        except openai.APIConnectionError as error:
            return Failure("transient", f"{error.message} {error.__cause__ or ''}".strip())
        return Answer(answer.content, answer.headers, time.monotonic() - began)

    @cached_property
    def client(self) -> Any:
        import openai  # takes a second, and planning does not need it

        return openai.OpenAI(
            api_key=self.key, base_url=self.address.base_url, max_retries=0, default_query=dict(self.address.query)
        )

    @cached_property
    def _headers(self) -> dict[str, Any]:
        import openai

        raw = {"X-Stainless-Raw-Response": "true"}
        return {**raw, "api-key": self.key, "Authorization": openai.Omit()} if self.address.azure else raw
