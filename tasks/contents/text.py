"""Text: a document is its own item, so a page is one slice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from tasks.contents.interface import KeysOf, Slice
from tasks.embedders.interface import Kind


@dataclass(frozen=True)
class Text:
    """The text that a record holds."""

    kind: ClassVar[str] = "text"
    gives: ClassVar[Kind] = "text"
    asked: ClassVar[Kind] = "text"
    steady: ClassVar[bool] = True

    def name_of(self, document: str) -> str:
        """The text itself."""
        return document

    def slices(self, documents: Sequence[str], keys_of: KeysOf) -> Iterable[Slice]:
        return [Slice(range(len(documents)), keys_of(documents), open=partial(map, documents.__getitem__))]
