"""From a reference to a picture, and from that to the item that a row means."""

import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from tasks.base.ahead import ahead
from tasks.base.errors import TransientError, VecferryError
from tasks.contents.image.patience import FIRST_DELAY, Unavailable
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
    outage: float = 60 * FIRST_DELAY
    """Seconds that a host is waited for that gives none of its pictures while others give theirs; then those are not to be had, and it
    is not asked again for as long."""
    _failure: VecferryError | None = None
    """The first: others follow from it, since nobody waits for anything after it."""
    _read: dict[str, str] = field(default_factory=dict)
    """Host → the reference that was read of it last."""
    _down: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Host → since when it gives nothing, and once it is given up, when that was and why."""
    _stopped: threading.Event = field(default_factory=threading.Event)
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
            self._stop()
            raise
        finally:
            results.close()

    def _look(self, page: Sequence[str], reference: str) -> Picture | RowError:
        try:
            data = self._bytes(page, reference)
        except VecferryError as error:
            with self._lock:
                self._failure = self._failure or error
            self._stop()
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
        """As the source reads it. What others do not suffer from is the row's own: else its batch would never be completed."""
        host = self.source.host(reference)
        if words := self._given_up(host):
            return RowError("unavailable", f"{shown(reference)}: {words}")
        try:
            data = self.source.read(reference)
        except Unavailable as error:
            data = self._despite(page, reference, host, error)
        if isinstance(data, bytes):
            self._read[host] = reference
        return data

    def _despite(self, page: Sequence[str], reference: str, host: str, error: Unavailable) -> bytes | RowError:
        """What was not to be had, where others are: once more, and then as the row's own fault. Raises the error where they are not."""
        others = [other for other in page if other != reference]
        same = [other for other in others if self.source.host(other) == host]
        if not self._gives(same):
            elsewhere = [other for other in others if other not in same]
            if not self._gives(elsewhere):
                raise error
            data = self._awaited(reference, host) if same else None
            if data is not None:
                return data
            if not (same and self._gives(same)):
                return self._once_more(reference, host, error, self._gives(elsewhere), give_up=bool(same))
        return self._once_more(reference, host, error, host)

    def _once_more(
        self, reference: str, host: str, error: Unavailable, witness: str | None, give_up: bool = False
    ) -> bytes | RowError:
        """The host may have come back only now. ``witness`` gives its images; without any the error is raised."""
        if witness is None:
            raise error
        try:
            return self.source.read(reference, once=True)
        except Unavailable:
            if give_up:
                self._down[host] = (
                    time.monotonic(),
                    f"{host} gave no image for {self.outage:g} s, while {witness} gave its images",
                )
                return RowError("unavailable", f"{error}; {self._down[host][1]}")
            whose = f"{host} gives other images" if witness == host else f"{witness} gives its images"
            return RowError("unavailable", f"{error}, while {whose}")

    def _awaited(self, reference: str, host: str) -> bytes | RowError | None:
        """What a host gives that is back before it was waited for long enough, by whichever thread noticed first that it is down."""
        with self._lock:
            since, _ = self._down.setdefault(host, (time.monotonic(), ""))
        while (left := since + self.outage - time.monotonic()) > 0:
            if self._stopped.wait(min(left, self.outage / 20)):
                raise TransientError(f"{shown(reference)}: stopped")
            with suppress(Unavailable):
                return self.source.read(reference, once=True)
        return None

    def _given_up(self, host: str) -> str:
        """Why a host is not asked again so soon; empty where it is asked."""
        since, words = self._down.get(host, (0.0, ""))
        return words if words and time.monotonic() - since < self.outage else ""

    def _gives(self, others: Sequence[str]) -> str | None:
        """The host of one of these pictures that can be read now."""
        good = [other for other in list(self._read.values()) if other in others][-WITNESSES:]
        for other in [*reversed(good), *random.sample(others, len(others))][:WITNESSES]:
            try:
                if isinstance(self.source.read(other, once=True), bytes):
                    return self.source.host(other)
            except TransientError:
                continue
        return None

    def _stop(self) -> None:
        self._stopped.set()
        self.source.stop()


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
