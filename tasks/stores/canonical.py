"""Canonical JSON for metadata, and the content hash of a record.

The hash must be the same for a record read from its source and for the row that PostgreSQL's jsonb gives back, so
numbers are written the way jsonb keeps them: 1e16 as 10000000000000000.0 (still a float), -0.0 as 0.0.
"""

import hashlib
import json
from typing import Any

import orjson

_HUGE = 1e16  # from here on repr() switches to an exponent, which jsonb would turn into an integer


def dumps(metadata: dict[str, Any] | None) -> str | None:
    """Canonical JSON: sorted keys, no spaces, UTF-8. NaN and infinities become the tokens NaN and Infinity."""
    if metadata is None:
        return None
    for value in metadata.values():
        kind = type(value)
        if kind is float:
            if not -_HUGE < value < _HUGE or value == 0.0 or -1e-3 < value < 1e-3:
                return _careful(metadata)
        elif kind is not str and kind is not int and kind is not bool:
            return _careful(metadata)
    try:
        return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # an integer beyond 64 bits
        return _careful(metadata)


def loads(text: str | bytes | None) -> dict[str, Any] | None:
    """The metadata that ``dumps`` wrote, types and all."""
    return None if text is None else json.loads(text)


def content_hash(document: str | None, metadata: str | None, uri: str | None, others: bytes | None = None) -> bytes:
    """SHA-256 over what a record says, its vector apart, and over its other vectors where it has some: 32 bytes. Null and ''
    differ."""
    parts = (document, metadata, uri) if others is None else (document, metadata, uri, others)
    return hashlib.sha256(b"".join(map(_delimited, parts))).digest()


def _delimited(part: str | bytes | None) -> bytes:
    if part is None:
        return b"-"
    data = part.encode() if isinstance(part, str) else part
    return b"+%d:%b" % (len(data), data)


def _careful(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(str(k))}:{_careful(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_careful, value)) + "]"
    if isinstance(value, float):
        if value == 0.0:
            return "0.0"
        if value != value or value in (float("inf"), float("-inf")):
            return json.dumps(value)
        text = repr(value)
        if "e" not in text:
            return text
        return f"{value:.1f}" if abs(value) >= _HUGE else _positional(text)
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    return orjson.dumps(value).decode()


def _positional(text: str) -> str:
    mantissa, exponent = text.split("e-")
    sign, digits = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    return f"{sign}0.{'0' * (int(exponent) - 1)}{digits.replace('.', '')}"
