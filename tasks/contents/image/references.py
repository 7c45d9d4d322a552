"""What a record of images says: its document, a text.

Most often that is the bare reference: ``photos/17.jpg``, ``https://cdn.example.org/17.jpg``, the key of the row that has the
bytes. Where there is more to say, or the reference begins with ``{``, it is a JSON object:

    {"crop": [10, 20, 300, 200], "image": "photos/17.jpg", "version": "3"}

``crop``      x, y, width and height, in pixels after EXIF rotation; where all four are 1 or less they are fractions of the
              picture's width and height. Four nulls are no crop.
``version``   anything: a new one is a new document, so the row is read again. It is no part of the picture.
``sha256``    of the file's bytes, in hex, with ``bytes``, their number: a picture whose vector is kept is then not opened,
              and one that is no longer so is refused.

In SQL that is ``jsonb_strip_nulls(jsonb_build_object('image', …, 'crop', …, 'version', …))::text``, whose order of fields and
spacing are PostgreSQL's own; any others are read as well.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from tasks.embedders.interface import RowError
from tasks.embedders.pictures import Box, Size

Crop = tuple[float, float, float, float]
"""x, y, width and height: fractions where all are 1 or less, else pixels."""
SHOWN = 200
"""Characters of a reference that a message has."""


@dataclass(frozen=True)
class Reference:
    """A document, read."""

    image: str
    crop: Crop | None = None
    version: str | None = None
    sha256: bytes | None = None
    """Of the file, where it is known beforehand; then ``size`` is too, in bytes."""
    size: int = 0


def read(document: str) -> Reference | RowError:
    """What a document says, or ``reference`` where it says nothing that can be followed."""
    if not document.startswith("{"):
        return _checked(Reference(document))
    try:
        fields = json.loads(document)
    except (ValueError, RecursionError):
        return RowError("reference", f"{shown(document)} begins with {{ but is not JSON")
    image, version = fields.get("image"), fields.get("version")
    if not isinstance(image, str):
        return RowError("reference", f"{shown(document)} names no image")
    crop = _crop(fields.get("crop"))
    if isinstance(crop, RowError):
        return RowError(crop.kind, f"{shown(image)}: {crop.message}")
    digest, size = fields.get("sha256"), fields.get("bytes")
    if digest is None:
        return _checked(Reference(image, crop, None if version is None else str(version)))
    try:
        known = bytes.fromhex(digest)
        if len(known) != 32 or type(size) is not int or size < 0:
            raise ValueError
    except (TypeError, ValueError):
        return RowError("reference", f"{shown(image)}: sha256 must be 64 hex digits, and bytes a number beside it")
    return _checked(Reference(image, crop, None if version is None else str(version), known, size))


def shown(reference: str) -> str:
    """As messages have it."""
    return repr(reference if len(reference) <= SHOWN else reference[:SHOWN] + "…")


def within(crop: Crop, size: Size) -> Box | RowError | None:
    """The part of a picture that a crop means, None where that is all of it, or ``outside``.

    Edges are rounded to whole pixels, so that a detector's box may stand out by less than half of one; a part is a pixel wide
    and high at least.
    """
    x, y, width, height = crop
    across, down = (size.width, size.height) if max(crop) <= 1 else (1, 1)
    left, right = _edges(x * across, (x + width) * across)
    top, bottom = _edges(y * down, (y + height) * down)
    if width <= 0 or height <= 0 or left < 0 or top < 0 or right > size.width or bottom > size.height:
        numbers = ", ".join(f"{number:g}" for number in crop)
        return RowError(
            "outside", f"the crop ({numbers}) is not within its picture, which is {size.width}×{size.height}"
        )
    box = (left, top, right, bottom)
    return None if box == (0, 0, size.width, size.height) else box


def _edges(low: float, high: float) -> tuple[int, int]:
    first, last = math.floor(low + 0.5), math.floor(high + 0.5)
    return (first, last) if last > first else (math.floor(low), math.floor(low) + 1)


def _crop(value: Any) -> Crop | RowError | None:
    if value is None or value == [None] * 4:
        return None
    wrong = RowError("reference", f"a crop is four numbers, x, y, width and height, not {shown(json.dumps(value))}")
    if not isinstance(value, list) or len(value) != 4:
        return wrong
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        return wrong
    if not all(abs(number) <= 1e9 for number in value):  # NaN is not either
        return wrong
    x, y, width, height = map(float, value)
    return x, y, width, height


def _checked(reference: Reference) -> Reference | RowError:
    if not reference.image.strip():
        return RowError("reference", "the reference is empty")
    if "\0" in reference.image or len(reference.image) > 8192:
        return RowError("reference", f"{shown(reference.image)} is not a file name")
    try:
        reference.image.encode()
    except UnicodeEncodeError:
        return RowError("reference", f"{shown(reference.image)} is not Unicode")
    return reference
