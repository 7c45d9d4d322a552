"""From a reference to a picture, and from that to the item that a row means."""

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.base.ahead import ahead
from tasks.base.errors import VecferryError
from tasks.contents.image.references import Reference, shown, within
from tasks.contents.image.sources import Source
from tasks.embedders.interface import Item, RowError
from tasks.embedders.pictures import Size, cropped, measure

_PAGE = re.compile(rb"\s*(?:<!doctype\s+html|<html)", re.I)


@dataclass(frozen=True)
class Picture:
    """A file that has been read, and by its header is a picture."""

    data: bytes
    size: Size


@dataclass
class Opening:
    """The pictures of a page."""

    source: Source
    max_pixels: int
    concurrency: int
    _failure: VecferryError | None = None
    """The first: others follow from it, since nobody waits for anything after it."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def pictures(self, references: Sequence[str], room: int) -> Iterator[Iterator[Picture | RowError]]:
        """The picture behind each, or why there is none, read ahead by threads until ``room`` bytes wait to be taken. Nothing can
        be read after an error."""
        results = ahead(self._look, references, self.concurrency, room, _weight)
        try:
            yield results
        except BaseException:
            self.source.stop()
            raise
        finally:
            results.close()

    def _look(self, reference: str) -> Picture | RowError:
        try:
            data = self.source.read(reference)
        except VecferryError as error:
            with self._lock:
                self._failure = self._failure or error
            self.source.stop()
            raise self._failure from None
        if isinstance(data, RowError):
            return data
        size = measure(data, self.max_pixels)
        if not isinstance(size, RowError):
            return Picture(data, size)
        if size.kind == "not_an_image" and _PAGE.match(data):
            return RowError("page", f"{shown(reference)}: there is a web page in place of the picture")
        return RowError(size.kind, f"{shown(reference)}: {size.message}")


def item_of(reference: Reference, picture: Picture | RowError) -> Item | RowError:
    """What of a picture the reference means, or why that is not to be had."""
    if isinstance(picture, RowError):
        return picture
    name = shown(reference.image)
    if reference.sha256 and hashlib.sha256(picture.data).digest() != reference.sha256:
        return RowError("changed", f"{name} is no longer the file whose hash was read; catch-up takes its new one")
    box = within(reference.crop, picture.size) if reference.crop else None
    if isinstance(box, RowError):
        return RowError(box.kind, f"{name}: {box.message}")
    return picture.data if box is None else cropped(picture.data, box)


def _weight(picture: Picture | RowError) -> int:
    return len(picture.data) if isinstance(picture, Picture) else 0
