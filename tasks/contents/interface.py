"""What a content is: the way from what a record says to the items that a model is given.

A record's ``document`` is what it says: its text, or the reference of its image. So triggers, queue, hashes and comparison are
the same for every content; only this knows what a document stands for. In a plan it is a tagged dataclass, as a place is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from tasks.embedders.interface import Item, Kind, RowError

KeysOf = Callable[[Sequence[Item]], list[bytes]]
"""Makes what the vectors of items are kept under: 32 bytes each."""


@dataclass(frozen=True)
class Slice:
    """Some of a page's documents, as many as may be open at once; the rest of the page waits."""

    rows: Sequence[int]
    """Positions among the documents."""
    keys: Sequence[bytes]
    """What the vector of each is kept under. A content that knows it without opening the item, by a hash that is stored with
    its reference, opens no item whose vector is kept."""
    open: Callable[[Sequence[int]], Iterable[Item | RowError]]
    """The items at these positions in ``rows``, or why one of them cannot be had. Called before the next slice is asked
    for, at most once for a key. Raises TransientError and FatalError."""
    refused: Mapping[int, RowError] = field(default_factory=dict)
    """Documents that no item stands behind, by position among the documents; they are not in ``rows``."""
    names: Mapping[int, str] = field(default_factory=dict)
    """What items are called in messages, by position among the documents, where a document is more than the item."""


class Content(Protocol):
    """One kind of content, with the options that its plan froze: a frozen dataclass."""

    kind: ClassVar[str]
    """What it is called in a plan."""
    gives: ClassVar[Kind]
    """What its items are: only a model that takes it can embed it."""
    steady: ClassVar[bool]
    """Whether a document stands for the same item for ever."""

    @property
    def asked(self) -> Kind:
        """What people search its vectors by."""
        ...

    def name_of(self, document: str) -> str:
        """What people call the item of a document."""
        ...

    def slices(self, documents: Sequence[str], keys_of: KeysOf) -> Iterable[Slice]:
        """The documents of a page, each in one slice or refused by one. Raises TransientError and FatalError."""
        ...
