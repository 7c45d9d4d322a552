"""A Qdrant collection that an application reads and writes, and a look at it that uses none of the code that migrates."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from qdrant_client import QdrantClient, models

from tasks.embedders.hashing import HashingEmbedder

OLD, NEW = HashingEmbedder(32), HashingEmbedder(48)
NAME = "image_chunks"
Rows = dict[str, Any]


class Near:
    """A vector by its direction, equal to what Qdrant keeps of it: cosine collections normalize."""

    def __init__(self, values: Any) -> None:
        vector = np.asarray(values, np.float64)
        self.vector = vector / (np.linalg.norm(vector) or 1.0)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Near)
            and self.vector.shape == other.vector.shape
            and bool(np.allclose(self.vector, other.vector, atol=1e-5))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Near({np.round(self.vector[:3], 4).tolist()}…)"


@dataclass
class Points:
    """A collection of captioned pictures. ``old`` is the name of its vectors, "" where they have none; ``uuids`` where its ids are
    UUIDs and no integers."""

    client: QdrantClient
    old: str = ""
    uuids: bool = False
    name: str = NAME
    key: str = "caption"
    embed: Callable[[list[str]], np.ndarray] = field(default=lambda texts: OLD.embed(texts).whole)
    """The application's model of old vectors, by what stands under ``key``."""
    size: int = OLD.dimensions
    folder: Path | None = None
    """Where the pictures are, and what stands under ``key`` is the name of one."""

    def make(self, rows: int = 60, **settings: Any) -> "Points":
        """The collection with so many points; every tenth says nothing under ``key``."""
        params = models.VectorParams(size=self.size, distance=models.Distance.COSINE)
        self.client.create_collection(self.name, {self.old: params} if self.old else params, **settings)
        self.write(range(rows))
        return self

    def id(self, number: int) -> int | str:
        return str(uuid.UUID(int=number + 1)) if self.uuids else number

    def payload(self, number: int, seed: int = 0) -> dict[str, Any]:
        """As the guide's application has them."""
        says = {self.key: self.document(number, seed)} if number % 10 != 9 else {}
        return {"chunk_id": str(uuid.UUID(int=number)), "document_id": number // 5, "image_type": "photo", **says}

    def document(self, number: int, seed: int = 0) -> str:
        """A text, or the name of a picture, of its own."""
        if self.folder:
            name = f"{number}-{seed}.png"
            if not (self.folder / name).exists():
                pixels = np.random.default_rng([number, seed]).integers(0, 256, (6, 8, 3), np.uint8)
                Image.fromarray(pixels).resize((48, 36)).save(self.folder / name)
            return name
        return f"picture {number} of {' '.join(f'word{number * 7 + seed + n}' for n in range(8))}"

    def write(self, numbers: Any, seed: int = 0) -> None:
        """Whole points, as an application upserts them: with the old vectors alone, until a contract has dropped them."""
        vectors: Any = self.client.get_collection(self.name).config.params.vectors
        points = []
        for number in numbers:
            payload = self.payload(number, seed)
            (vector,) = self.embed([payload.get(self.key, "nothing")]).tolist()
            named = {self.old: vector} if self.old and self.old in vectors else {}
            points.append(models.PointStruct(id=self.id(number), vector=named if self.old else vector, payload=payload))
        self.client.upsert(self.name, points, wait=True)

    def change(self, step: int) -> None:
        """New points, points upserted whole, another payload, another document without another vector, and a deletion."""
        self.write(range(1_000 + 10 * step, 1_003 + 10 * step))
        self.write([20 + step], seed=step)
        self.client.set_payload(self.name, {"seen": step}, [self.id(30)], wait=True)
        self.client.set_payload(self.name, {self.key: self.document(31, step)}, [self.id(31)], wait=True)
        self.client.delete(self.name, [self.id(step)], wait=True)

    def rows(self, name: str, using: str = "") -> Rows:
        """What is in a collection: id → payload, and the vector of that name by its direction, None where there is none."""
        return {str(p.id): (json.dumps(p.payload, sort_keys=True), _vector(p.vector, using)) for p in self._all(name)}

    def expected(
        self, model: Callable[[list[str]], np.ndarray] = lambda texts: NEW.embed(texts).whole, name: str | None = None
    ) -> Rows:
        """What must be there of a collection, by default this one: each point's payload, and the new model's vector of what stands
        under ``key``."""
        rows = {}
        for point in self._all(name or self.name):
            payload: Mapping[str, Any] = point.payload or {}
            says = payload.get(self.key)
            rows[str(point.id)] = (json.dumps(payload, sort_keys=True), Near(model([says])[0]) if says else None)
        return rows

    def _all(self, name: str) -> Iterator[models.Record]:
        after = None
        while True:
            points, after = self.client.scroll(name, limit=100, offset=after, with_payload=True, with_vectors=True)
            yield from points
            if after is None:
                return


def _vector(vector: Any, using: str) -> Near | None:
    named = vector if isinstance(vector, dict) else {"": vector}
    return Near(named[using]) if named.get(using) else None
