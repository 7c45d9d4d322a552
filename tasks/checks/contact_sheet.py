"""A few rows with their neighbours by the old and by the new vectors, as pictures: what a person looks at before he switches."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from tasks.base.errors import VecferryError
from tasks.contents.interface import Content
from tasks.embedders.pictures import decode
from tasks.stores.interface import Records, vectors

ROWS, NEIGHBOURS = 8, 5
SIDE, QUALITY = 112, 75
"""Pixels of a picture's longer side, and how well it is kept as JPEG: about 3 KB each."""


@dataclass(frozen=True)
class Frame:
    """One picture of the sheet."""

    id: str
    distance: float | None = None
    """From the row that was searched for; None of that row itself."""


@dataclass(frozen=True)
class Strip:
    """A row, and its neighbours in both spaces, the nearest first."""

    row: Frame
    old: tuple[Frame, ...]
    new: tuple[Frame, ...]


@dataclass(frozen=True)
class ContactSheet:
    """Of some random rows."""

    strips: tuple[Strip, ...]
    pictures: Mapping[str, str]
    """Id → data: URL, of those whose picture can be had now."""

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(strip) for strip in self.strips]


def contact_sheet(content: Content, old: Records, new: Records) -> ContactSheet | None:
    """None where documents stand for no images, and where no row has both vectors."""
    if content.gives != "image":
        return None
    new_rows = _by_id(new.sample(ROWS, content=False))
    old_rows = _by_id([old.fetch(list(new_rows), content=False)])
    names = [name for name in new_rows if name in old_rows]
    if not names:
        return None
    strips = tuple(
        Strip(Frame(name), *neighbours)
        for name, *neighbours in zip(
            names, _neighbours(old, old_rows, names), _neighbours(new, new_rows, names), strict=True
        )
    )
    shown = dict.fromkeys(f.id for strip in strips for f in (strip.row, *strip.old, *strip.new))
    batch = new.fetch(list(shown))
    documents = dict(zip(batch.column("id").to_pylist(), batch.column("document").to_pylist(), strict=True))
    try:
        return ContactSheet(strips, _pictures(content, {i: d for i, d in documents.items() if d is not None}))
    except VecferryError:  # of where the images are: verification does not hang on what is only looked at
        return ContactSheet(strips, {})


def _by_id(batches: Iterable[pa.RecordBatch]) -> dict[str, np.ndarray]:
    rows = dict[str, np.ndarray]()
    for batch in batches:
        there = batch.filter(batch.column("embedding").is_valid())
        rows |= zip(there.column("id").to_pylist(), vectors(there), strict=True)
    return rows


def _neighbours(records: Records, rows: Mapping[str, np.ndarray], names: Sequence[str]) -> list[tuple[Frame, ...]]:
    """Of each row, by the store's own search; the row itself is left out."""
    hits = records.search(np.stack([rows[name] for name in names]), NEIGHBOURS + 1)
    return [
        tuple(Frame(i, float(d)) for i, d in zip(one.ids, one.distances, strict=True) if i != name)[:NEIGHBOURS]
        for name, one in zip(names, hits, strict=True)
    ]


def _pictures(content: Content, documents: Mapping[str, str]) -> dict[str, str]:
    names, pictures = list(documents), dict[str, str]()
    for part in content.slices(list(documents.values()), lambda items: [str(at).encode() for at in range(len(items))]):
        for row, item in zip(part.rows, part.open(range(len(part.rows))), strict=True):
            picture = decode(item) if isinstance(item, bytes) else None
            if isinstance(picture, Image.Image):
                pictures[names[row]] = _url(picture)
    return pictures


def _url(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
