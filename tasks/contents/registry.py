"""Contents as a plan keeps them, {"kind": "text", …} in JSON. An adapter is imported only when a plan names it."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.contents.interface import Content

KINDS = {"text": "tasks.contents.text:Text", "image": "tasks.contents.image.content:Image"}
"""Kind → where its class is. A content is added by a file and a line here."""


def encode(content: Content) -> dict[str, Any]:
    """The content as JSON."""
    return {"kind": content.kind, **asdict(content)}  # type: ignore[call-overload]


def decode(data: Mapping[str, Any]) -> Content:
    """The content that ``encode`` wrote. Raises UsageError for a kind that is not known."""
    kind = data["kind"]
    if kind not in KINDS:
        raise UsageError(f"no content is called {kind!r}; available: {', '.join(KINDS)}")
    module, name = KINDS[kind].split(":")
    content: Content = stored.read(getattr(import_module(module), name), data)
    return content
