"""How a model is written: ``provider/model[@revision][?option=value&…]``, values percent-encoded where they must be."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from tasks.base.errors import UsageError

_REVISION = re.compile(r"(?<=[^/])@")
"""An @ that begins a part of a path belongs to the name: ``@cf/baai/bge-m3``."""


@dataclass(frozen=True)
class ModelName:
    """A model's name in its parts. The readers below raise UsageError that names the option and what it takes."""

    written: str
    provider: str
    model: str
    revision: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return repr(self.written)

    def allow(self, options: Sequence[str]) -> None:
        """Only these options may be there."""
        for option in self.options:
            if option not in options:
                known = f"available: {', '.join(options)}" if options else f"{self.provider} has no options"
                raise UsageError(f"embedder {self}: no option is called {option!r}; {known}")

    def one_of(self, option: str, values: Sequence[str]) -> str | None:
        """One of ``values``, or None where the option is not there."""
        value = self.options.get(option)
        if value is not None and value not in values:
            raise UsageError(f"embedder {self}: {option} must be one of {', '.join(values)}, got {value!r}")
        return value

    def whole(self, option: str, least: int, most: int) -> int | None:
        """A whole number, or None where the option is not there."""
        value = self.options.get(option)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal()) or not least <= int(value) <= most:
            raise UsageError(f"embedder {self}: {option} must be a whole number from {least} to {most}, got {value!r}")
        return int(value)

    def number(self, option: str) -> float | None:
        """A number that is not negative, or None where the option is not there."""
        value = self.options.get(option)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise UsageError(f"embedder {self}: {option} must be a number of 0 or more, got {value!r}")
        return number


def parse_model(written: str) -> ModelName:
    """The parts of a model's name. Raises UsageError where an option has no value, or is there twice."""
    provider, _, rest = written.partition("/")
    model, _, query = rest.partition("?")
    model, *revision = _REVISION.split(model, maxsplit=1)
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        option, equals, value = pair.partition("=")
        if not option or not equals or not value:
            raise UsageError(f"embedder {written!r}: an option is written option=value, got {pair!r}")
        if option in options:
            raise UsageError(f"embedder {written!r}: {option} is given twice")
        options[option] = unquote(value)
    return ModelName(written, provider, model, "".join(revision), options)


def shown(written: str) -> str:
    """The name for people: a model in a directory is called by the last part of its path, which a registry knows it by too."""
    _, _, model = written.partition("/")
    path, mark, options = model.partition("?")
    if not path.startswith((".", "/", "~")):
        return written
    return f"{path.rstrip('/').rpartition('/')[2]}{mark}{options}"
