"""Images: a document is the reference of a picture, and its item the bytes of that (tasks/embedders/pictures.py), with the part
of it that is meant.

A key is the hash of an item, so a picture is read before it is known whether its vector is kept, and read once: its bytes stay
until the model has had the slice that they are in. The only pictures that are not read are those whose document has the hash
(references.py). References are followed once a page, however many crops a picture has. What goes wrong with one row is its own:

    reference       the document says nothing that can be followed
    missing         there is no such file, row or host; HTTP 404, 410
    denied          no right to read it; HTTP 401, 402, 403, 407, 451
    forbidden       a host on the local or a private network, or asked in another way than https
    escapes         the reference leads out of where images may be
    refused         any other answer of a host
    untrusted       a host without a valid certificate
    too_slow        a host that goes on sending, and does not come to an end
    unavailable     5xx or no answer, however often it is tried, while others of the same host are read, or for long while other
                    hosts give theirs (opening.py)
    page            a web page in place of a picture
    empty           no bytes
    too_large       more bytes than ``max_bytes``
    too_many_pixels more pixels than ``max_pixels``
    not_an_image    nothing that Pillow reads
    unsupported     HEIF, or values of which none is known to be white
    truncated       cut off or damaged; behind its header, the decoder finds it
    outside         the crop is not within the picture
    changed         the file is no longer the one whose hash the document has

What may pass is tried a few times, then raised as TransientError; a root that is not there, or a key that is not accepted, is
raised as FatalError.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.contents.image.local import too_large
from tasks.contents.image.opening import Opening, item_of
from tasks.contents.image.options import Options
from tasks.contents.image.references import Reference, read, shown
from tasks.contents.image.sources import open_source
from tasks.contents.interface import KeysOf, Slice
from tasks.embedders.interface import Item, Kind, RowError

SLICE = 1 << 26
"""Bytes of the pictures of a slice, or one picture."""
AHEAD = 1 << 26
"""Bytes that are read while the model is at a slice; and what the threads are at."""


@dataclass(frozen=True)
class Image(Options):
    """Pictures, or parts of them."""

    kind: ClassVar[str] = "image"
    gives: ClassVar[Kind] = "image"
    steady: ClassVar[bool] = False

    def name_of(self, document: str) -> str:
        """The reference of the picture."""
        reference = read(document)
        return document if isinstance(reference, RowError) else reference.image

    def slices(self, documents: Sequence[str], keys_of: KeysOf) -> Iterator[Slice]:
        """As Content.slices. Connections are closed when it is done, or closed itself."""
        opening = Opening(open_source(self), self.max_pixels, self.concurrency)
        try:
            references, refused = self._read(documents)
            if refused:
                yield Slice([], [], lambda at: [], refused)
            known = {row: one for row, one in references.items() if one.sha256 and not one.crop}
            yield from _known(known, opening)
            yield from _unknown({row: one for row, one in references.items() if row not in known}, keys_of, opening)
        finally:
            opening.source.close()

    def _read(self, documents: Sequence[str]) -> tuple[dict[int, Reference], dict[int, RowError]]:
        """What the documents say, and which are refused for it."""
        references, refused = dict[int, Reference](), dict[int, RowError]()
        for row, reference in enumerate(map(read, documents)):
            if isinstance(reference, RowError):
                refused[row] = reference
            elif reference.sha256 and reference.size > self.max_bytes:
                refused[row] = too_large(shown(reference.image), reference.size, self.max_bytes)
            else:
                references[row] = reference
        return references, refused


def _known(references: Mapping[int, Reference], opening: Opening) -> Iterator[Slice]:
    """Pictures whose keys are known: who has their vectors opens none."""
    for rows in _cut(references):
        part = [references[row] for row in rows]

        def open_(at: Sequence[int], part: Sequence[Reference] = part) -> list[Item | RowError]:
            chosen = [part[i] for i in at]
            with opening.pictures([reference.image for reference in chosen], AHEAD) as pictures:
                return [item_of(reference, picture) for reference, picture in zip(chosen, pictures, strict=True)]

        names = {row: shown(references[row].image) for row in rows}
        yield Slice(rows, [reference.sha256 or b"" for reference in part], open_, names=names)


def _cut(references: Mapping[int, Reference]) -> Iterator[list[int]]:
    rows, size = list[int](), 0
    for row, reference in references.items():
        if rows and size + reference.size > SLICE:
            yield rows
            rows, size = [], 0
        rows.append(row)
        size += reference.size
    if rows:
        yield rows


def _unknown(references: Mapping[int, Reference], keys_of: KeysOf, opening: Opening) -> Iterator[Slice]:
    """Pictures that are read for their keys, while the model has the slice before."""
    rows_of: dict[str, list[int]] = {}
    for row, reference in references.items():
        rows_of.setdefault(reference.image, []).append(row)
    items, refused, size = dict[int, Item](), dict[int, RowError](), 0
    with opening.pictures(list(rows_of), AHEAD) as pictures:
        for rows, picture in zip(rows_of.values(), pictures, strict=True):
            for row in rows:
                item = item_of(references[row], picture)
                if isinstance(item, RowError):
                    refused[row] = item
                    continue
                items[row] = item
                size += len(item)
                if size >= SLICE:
                    yield _slice(items, refused, references, keys_of)
                    items.clear()  # by now the model has had them
                    refused, size = {}, 0
        if items or refused:
            yield _slice(items, refused, references, keys_of)


def _slice(
    items: Mapping[int, Item], refused: Mapping[int, RowError], references: Mapping[int, Reference], keys_of: KeysOf
) -> Slice:
    rows = list(items)
    names = {row: shown(references[row].image) for row in rows}
    return Slice(rows, keys_of(list(items.values())), lambda at: [items[rows[i]] for i in at], refused, names)
