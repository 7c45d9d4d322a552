"""What an answer of the embeddings API means: the class of a refusal, the vectors of a success. Pure functions."""

import binascii
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pybase64

from tasks.base.words import counted, plural

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

Verdict = Literal["transient", "fatal", "too_large", "too_many", "row"]


def classify(status: int, code: str, message: str, param: str = "") -> Verdict:
    """What an HTTP status with OpenAI's error ``code``, ``message`` and ``param`` means for the run (contract 3).

    ``too_large`` and ``too_many`` are a request that its halves may pass; ``row`` one in which some input is at fault.
    """
    if _NO_MONEY.fullmatch(code) or _NOT_THE_INPUT.fullmatch(code):
        return "fatal"
    if status == 429:  # one that asks for more than a whole minute's tokens is refused for ever
        return "too_large" if "request too large" in message.lower() else "transient"
    if status in (408, 409) or status >= 500:
        return "transient"
    if status in (400, 413, 422):
        if param in ("model", "dimensions", "encoding_format", "user"):
            return "fatal"
        if _TOO_LARGE.search(f"{code} {message}"):
            return "too_large"
        if _TOO_MANY.search(message):
            return "too_many"
        return "too_large" if status == 413 else "row"
    return "fatal"


def code_of(error: Mapping[str, Any]) -> str:
    """The code of an error body; where it says less than the type does, the type: insufficient_quota comes as either."""
    codes = [str(error.get(name) or "") for name in ("code", "type")]
    return next((code for code in codes if _NO_MONEY.fullmatch(code)), codes[0] or codes[1])


def decode(body: Any, count: int, dimensions: int) -> np.ndarray:
    """float32[count, dimensions] of a parsed answer, each row where its ``index`` says.

    Raises ValueError for a wrong number of rows, an index twice, a wrong dimension, and NaN or infinity.
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
    if not np.isfinite(out).all():
        raise ValueError("a vector holds NaN or infinity")
    return out


def _bytes(values: list[Any], width: int) -> bytes:
    """The vectors' components one after the other, ``width`` bytes each. Raises ValueError for another width."""
    # At once where the text of each has no padding: a decoder gives the interpreter's lock away, and waits for it again.
    if width % 3 == 0 and all(isinstance(value, str) and len(value) == width // 3 * 4 for value in values):
        return pybase64.b64decode("".join(values), validate=True)
    parts = [
        pybase64.b64decode(value, validate=True) if isinstance(value, str) else np.asarray(value, "<f4").tobytes()
        for value in values
    ]
    for part in parts:
        if len(part) != width:
            raise ValueError(
                f"a vector has {len(part) // 4} {plural(len(part) // 4, 'dimension')}, not the {width // 4} of "
                f"the space; write ?dimensions={len(part) // 4} if that is what you mean"
            )
    return b"".join(parts)
