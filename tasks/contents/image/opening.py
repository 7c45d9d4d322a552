"""From a reference to a picture, and from that to the item that a row means."""

import hashlib
import random
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tasks.base.ahead import ahead
from tasks.base.errors import TransientError, VecferryError
from tasks.contents.image.patience import Unavailable
from tasks.contents.image.references import Reference, shown, within
from tasks.contents.image.sources import Source
from tasks.embedders.interface import Item, RowError
from tasks.embedders.pictures import Size, cropped, measure

WITNESSES = 5
"""Pictures that are asked for, at most, to tell a host that is down from one of its pictures that is never to be had."""
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
    _read: dict[str, str] = field(default_factory=dict)
    """Host → the reference that was read of it last."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def pictures(self, references: Sequence[str], room: int) -> Iterator[Iterator[Picture | RowError]]:
        """The picture behind each, or why there is none, read ahead by threads until ``room`` bytes wait to be taken. Nothing can
        be read after an error."""
        look = partial(self._look, references)
        results = ahead(look, references, self.concurrency, room, _weight)
        try:
            yield results
        except BaseException:
            self.source.stop()
            raise
        finally:
            results.close()

    def _look(self, page: Sequence[str], reference: str) -> Picture | RowError:
        try:
            data = self._bytes(page, reference)
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
            return RowError("page", f"{shown(reference)}: a web page came in place of the picture")
        return RowError(size.kind, f"{shown(reference)}: {size.message}")

    def _bytes(self, page: Sequence[str], reference: str) -> bytes | RowError:
        """As the source reads it. What others of its host do not suffer from is the row's own: else its batch would never be
        completed."""
        host = self.source.host(reference)
        try:
            data = self.source.read(reference)
        except Unavailable as error:
            witness = self._witness(page, reference, host)
            if witness is None:
                raise
            try:
                data = self.source.read(reference, once=True)  # the host may have come back only now
            except Unavailable:
                whose = f"{host} gives other images" if witness == host else f"{witness} gives its images"
                return RowError("unavailable", f"{error}, while {whose}")
        if isinstance(data, bytes):
            self._read[host] = reference
        return data

    def _witness(self, page: Sequence[str], reference: str, host: str) -> str | None:
        """The host of another picture of the page that can be read now: of the same host, where the page has one."""
        others = [other for other in page if other != reference]
        others = [other for other in others if self.source.host(other) == host] or others
        good = [other for other in list(self._read.values()) if other in others][-WITNESSES:]
        for other in [*reversed(good), *random.sample(others, len(others))][:WITNESSES]:
            try:
                if isinstance(self.source.read(other, once=True), bytes):
                    return self.source.host(other)
            except TransientError:
                continue
        return None


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
