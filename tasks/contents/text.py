"""Text: a document is its own item, so a page is one slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tasks.contents.interface import Slice
from tasks.embedders.interface import Embedder, Kind


@dataclass(frozen=True)
class Text:
    """The text that a record holds."""

    kind: Kind = "text"

    def slices(self, documents: Sequence[str], embedder: Embedder) -> Iterator[Slice]:
        yield Slice(
            range(len(documents)), embedder.keys(documents), lambda positions: [documents[at] for at in positions]
        )
