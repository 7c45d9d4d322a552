"""Opens the content that a plan names. An adapter is imported only when it is asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tasks.base.errors import UsageError
from tasks.contents.interface import Content

CONTENTS = {"text": "tasks.contents.text:Text"}
"""Kind → module and class; a content is added by a file and a line here."""


def open_content(spec: Mapping[str, Any]) -> Content:
    """The content of a target: {"kind": name, **options}. Raises UsageError when there is none of that kind."""
    if spec["kind"] not in CONTENTS:
        raise UsageError(f"there is no content {spec['kind']!r}; there is: {', '.join(CONTENTS)}")
    module, _, name = CONTENTS[spec["kind"]].partition(":")
    opened: Content = getattr(import_module(module), name)(**spec)
    return opened
