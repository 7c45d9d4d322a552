"""What a content is: the way from what a record says to the items that a model is given.

A record's ``document`` is what it says: its text, or the reference of its image. So a trigger, a queue, a hash or a comparison
is the same for every content; only this knows what a document stands for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tasks.embedders.interface import Embedder, Item, Kind, RowError


@dataclass(frozen=True)
class Slice:
    """Some of a page's documents, as many as may be open at once; the rest of the page waits."""

    rows: Sequence[int]
    """Positions among the documents."""
    keys: Sequence[bytes]
    """What the vector of each is kept under: 32 bytes, the embedder's key of its item. A content that knows it without
    opening the item, by a hash that is stored with its reference, opens no item whose vector is kept."""
    open: Callable[[Sequence[int]], Sequence[Item | RowError]]
    """The items at these positions in ``rows``, or why one of them cannot be had. Called at most once for each, before the
    next slice is asked for. Raises TransientError and FatalError."""
    refused: Mapping[int, RowError] = field(default_factory=dict)
    """Documents that no item stands behind, by position among the documents; they are not in ``rows``."""


class Content(Protocol):
    """One kind of content, with the options that its plan froze."""

    @property
    def kind(self) -> Kind:
        """What its items are: a model that does not take it cannot embed it."""
        ...

    def slices(self, documents: Sequence[str], embedder: Embedder) -> Iterator[Slice]:
        """The documents of a page, each in one slice or refused by one. Raises TransientError and FatalError."""
        ...
