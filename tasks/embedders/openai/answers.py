"""What an answer of the embeddings API means: the class of a refusal, the vectors of a success. Pure functions."""

import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
import pybase64

from tasks.base.words import counted, plural
from tasks.embedders.openai.too_long import says_too_long

_NO_MONEY = re.compile(r"insufficient_quota|credit_balance_exhausted|.*_(spend|usage)_limit_exceeded")
_NOT_THE_INPUT = re.compile(r"model_not_found|invalid_api_key|unknown_model|model_not_supported|unsupported_model")
_TOO_LARGE = re.compile(
    r"max_tokens_per_request|tokens per (request|submitted batch)|request too large|maximum request size"
    r"|length limit exceeded|payload",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(
    r"batch.?size|too many (inputs|texts|items)|(inputs|items|array)\b.{0,40}\b(at most|max|maximum|larger|limit)",
    re.IGNORECASE,
)
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)

Verdict = Literal["transient", "fatal", "doubtful", "form", "too_large", "too_many", "too_long", "row"]


def classify(status: int, code: str, message: str, param: str = "", page: bool = False) -> Verdict:
    """What an HTTP status with OpenAI's error ``code``, ``message`` and ``param`` means for the run (contract 3); ``page`` where
    no API has said so, but something before it.

    ``too_large`` and ``too_many`` are a request that its halves may pass; ``too_long`` and ``row`` one in which some input is
    at fault; ``form`` one that is asked in a way which the server does not take; ``doubtful`` one of which only another
    request can tell whether the input, the account or the server is at fault.
    """
    if _NO_MONEY.fullmatch(code) or _NOT_THE_INPUT.fullmatch(code):
        return "fatal"
    if status == 429:  # one that asks for more than a whole minute's tokens is refused for ever
        return "too_large" if "request too large" in message.lower() else "transient"
    if status >= 500:
        return "too_long" if says_too_long(message) else "transient"
    if status in (408, 409):
        return "transient"
    if status in (400, 413, 422):
        return _of_request(status, f"{code} {message}", param)
    return "doubtful" if page or status not in (401, 402) else "fatal"


def _of_request(status: int, words: str, param: str) -> Verdict:
    if param in ("dimensions", "encoding_format"):
        return "form"
    if param in ("model", "user"):
        return "fatal"
    if _TOO_LARGE.search(words):
        return "too_large"
    if says_too_long(words):
        return "too_long"
    if _TOO_MANY.search(words):
        return "too_many"
    return "too_large" if status == 413 else "row"


@dataclass(frozen=True)
class Words:
    """What the body of a refusal says."""

    message: str
    code: str = ""
    param: str = ""
    page: bool = False
    """Whether it is a page for people: no API has spoken."""


def words_of(text: str) -> Words:
    """The body of a refusal in its server's own words: OpenAI's form, those of others, a page, or nothing at all."""
    try:
        body = json.loads(text)
    except ValueError:
        page = "<html" in text[:2000].lower() or "<!doctype" in text[:200].lower()
        title = _TITLE.search(text)
        shown = f"{title[1] if title else ''} {_UNSEEN.sub(' ', text)}" if page else text
        return Words(" ".join(shown.split()) or "no more is said", page=page)
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict):
        message = _first(inner, "message", "detail", "msg", "errors") or json.dumps(inner, ensure_ascii=False)
        return Words(message, _code(inner), str(inner.get("param") or ""))
    return Words(inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False))


def _first(error: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = error.get(name)
        if isinstance(value, list) and value:
            value = "; ".join(_first(one, "message", "msg") if isinstance(one, dict) else str(one) for one in value)
        if value:
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return ""


def _code(error: Mapping[str, Any]) -> str:
    """The code of an error; where it says less than the type does, the type: insufficient_quota comes as either."""
    codes = [str(error.get(name) or "") for name in ("code", "type")]
    return next((code for code in codes if _NO_MONEY.fullmatch(code)), codes[0] or codes[1])


def parse(content: bytes) -> Any:
    """The JSON of an answer; NaN and Infinity, which some servers write, are taken too. Raises ValueError."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return json.loads(content)


@dataclass(frozen=True)
class Decoded:
    """The vectors of an answer."""

    vectors: np.ndarray
    """float32[n, d]"""
    spoilt: Mapping[int, str]
    """Of the rows that are no vectors, why, by position."""
    proven: bool = True
    """Whether the server was seen to be well, so that these texts are at fault."""

    @property
    def partly(self) -> bool:
        """Whether some rows are vectors and some are none."""
        return 0 < len(self.spoilt) < len(self.vectors)


def decode(body: Any, count: int, dimensions: int) -> Decoded:
    """float32[count, dimensions] of a parsed answer, each row where its ``index`` says; a row that is null, or holds null, NaN or
    infinity, is told.

    Raises ValueError for a wrong number of rows, an index twice, and a wrong dimension.
    """
    rows = body.get("data")
    if not isinstance(rows, list) or len(rows) != count:
        raise ValueError(
            f"sent {counted(count, 'text')}, got "
            f"{counted(len(rows), 'vector') if isinstance(rows, list) else 'no vectors'} back"
        )
    try:
        places = [row.get("index", place) for place, row in enumerate(rows)]
        if sorted(places) != list(range(count)):
            raise ValueError(f"the answer's indexes are not 0 to {count - 1}, once each")
        values: list[Any] = [None] * count
        for place, row in zip(places, rows, strict=True):
            values[place] = row["embedding"]
        data = _bytes(values, 4 * dimensions)
    except (AttributeError, KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"the answer is not that of an embeddings API: {error!r}") from None
    out = np.frombuffer(data, "<f4").reshape(count, dimensions)
    finite = np.isfinite(out)
    if finite.all():
        return Decoded(out, {})
    spoilt = np.flatnonzero(~finite.all(axis=1)).tolist()
    return Decoded(out, {row: _spoilt(values[row]) for row in spoilt})


def _spoilt(value: Any) -> str:
    missing = not value or (isinstance(value, list) and None in value)
    return "its vector is null or holds null" if missing else "its vector holds NaN or infinity"


def _bytes(values: list[Any], width: int) -> bytes:
    """The vectors' components one after the other, ``width`` bytes each. Raises ValueError for another width."""
    # At once where the text of each has no padding: a decoder gives the interpreter's lock away, and waits for it again.
    if width % 3 == 0 and all(isinstance(value, str) and len(value) == width // 3 * 4 for value in values):
        return pybase64.b64decode("".join(values), validate=True)
    missing = np.full(width // 4, np.nan, "<f4").tobytes()
    parts = [
        missing
        if not value
        else pybase64.b64decode(value, validate=True)
        if isinstance(value, str)
        else np.asarray(value, "<f4").tobytes()
        for value in values
    ]
    for part in parts:
        if len(part) != width:
            raise ValueError(
                f"a vector has {len(part) // 4} {plural(len(part) // 4, 'dimension')}, not the {width // 4} of "
                f"the space; write ?dimensions={len(part) // 4} if that is what you mean"
            )
    return b"".join(parts)
