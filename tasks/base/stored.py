"""Dataclasses that were stored as JSON, read back by a program that may know other fields."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from tasks.base.errors import FatalError

T = TypeVar("T")


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """A ``kind`` of its stored fields: those that it does not have are passed over, those that are missing get their
    defaults, and a list is a tuple. Raises FatalError for a missing field without one."""
    known = [f for f in fields(kind) if f.init]  # type: ignore[arg-type]
    without = [f.name for f in known if f.name not in values and f.default is f.default_factory is MISSING]
    if without:
        raise FatalError(f"the stored {kind.__name__} lacks {', '.join(without)}: restore it from a backup")
    given = {f.name: values[f.name] for f in known if f.name in values}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
