"""The places of new vectors in Qdrant: a second named vector of the collection, or a collection beside it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from tasks.base import stored
from tasks.base.words import counted

Sent = tuple[str, str]
"""When a request is sent, and which one."""


@dataclass(frozen=True, kw_only=True)
class QdrantPlace(ABC):
    """What places here have in common. Satisfies Place with the facts of its subclasses."""

    kind: ClassVar[str]
    store: ClassVar[str] = "qdrant"
    loads: ClassVar[bool] = True
    at_once: ClassVar[bool] = False
    partial: ClassVar[bool] = False
    queue: ClassVar[None] = None
    followed: ClassVar[bool] = True
    followed_after_contract: ClassVar[bool] = False

    url: str | None = None
    """Of the server; None where the store is a folder."""
    path: str | None = None
    """Of qdrant-client's local mode."""
    api_key: str | None = None
    """The name of the key."""
    collection: str
    """The collection of the old vectors by its own name, never by an alias."""
    vector: str
    """The old vectors; empty for those without a name."""
    new_vector: str
    """The new ones; empty for those without a name."""
    dimensions: int
    distance: str
    others: tuple[str, ...] = ()
    """The vectors beside the old ones, when this was planned."""

    def shape(self, rows: int) -> str:
        """``image_chunks_768: vector size 768, distance Cosine, 20,000 points``"""
        return f"{self.made}: vector size {self.dimensions}, distance {self.distance}, {counted(rows, 'point')}"

    @property
    def rows(self) -> dict[str, Any]:
        """Which vectors are read of the source."""
        return {"vector": self.vector, "others": list(self.others)}

    @property
    def vector_type(self) -> str:
        return "float32"

    @property
    def row_bytes(self) -> int:
        return 4 * self.dimensions

    @property
    def label(self) -> str:
        return self.collection

    @property
    @abstractmethod
    def name(self) -> str:
        """What people call it."""

    @property
    def made(self) -> str:
        """What the new vectors are called, before the switch too."""
        return self.name

    @property
    @abstractmethod
    def holder(self) -> str:
        """The collection that holds the new vectors."""

    @abstractmethod
    def requests(self) -> Iterator[Sent]:
        """The requests that change something, for the plan."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return stored.read(cls, data)


@dataclass(frozen=True, kw_only=True)
class NamedVector(QdrantPlace):
    """A second named vector of the same points, which the application searches once it says so with each search."""

    kind: ClassVar[str] = "named_vector"
    followed_after_contract: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"{self.collection}.{self.new_vector}"

    @property
    def holder(self) -> str:
        return self.collection

    def requests(self) -> Iterator[Sent]:
        collection = f"/collections/{self.collection}"
        yield "before points are read", f"PUT {collection}/vectors/{self.new_vector}"
        yield "while loading", f"PUT {collection}/points/vectors, {self.new_vector} alone"
        yield "while catching up", f"PUT {collection}/points/vectors; POST {collection}/points/vectors/delete"
        yield "once all points are in", f"PATCH {collection}, the index of {self.new_vector}"
        yield "at the cutover", f"PATCH {collection}, its metadata alone"
        if self.vector:
            yield "at the contract", f"DELETE {collection}/vectors/{self.vector}"


@dataclass(frozen=True, kw_only=True)
class NewCollection(QdrantPlace):
    """A collection beside the old one, which an alias comes to point to. What is still written to the old one by its own name is
    followed."""

    kind: ClassVar[str] = "new_collection"

    new_collection: str
    alias: str
    alias_was: str | None = None
    """The collection that it pointed to when this was planned; None where there was no such alias."""

    @property
    def name(self) -> str:
        return self.new_collection

    @property
    def holder(self) -> str:
        return self.new_collection

    def requests(self) -> Iterator[Sent]:
        yield from _loaded(self.new_collection)
        moved = f" in place of {self.alias_was}" if self.alias_was else ""
        yield "at the cutover", f"POST /collections/aliases, {self.alias} → {self.new_collection}{moved}"
        yield "at the contract", f"DELETE /collections/{self.collection}"


@dataclass(frozen=True, kw_only=True)
class ReplacedCollection(QdrantPlace):
    """A collection that takes the name of the old one, as an alias. The old points go on in a copy."""

    kind: ClassVar[str] = "replaced_collection"

    new_collection: str
    copy: str
    """The name of that copy."""

    @property
    def alias(self) -> str:
        """What comes to point to the new collection."""
        return self.collection

    @property
    def name(self) -> str:
        return self.collection

    @property
    def made(self) -> str:
        return self.new_collection

    @property
    def holder(self) -> str:
        return self.new_collection

    def requests(self) -> Iterator[Sent]:
        yield from _loaded(self.new_collection)
        yield "once all points are in", f"PUT /collections/{self.copy} and its points, the copy of {self.collection}"
        yield "at the cutover", f"PUT /collections/{self.copy}/points, until it equals {self.collection}"
        yield "at the cutover", f"DELETE /collections/{self.collection}"
        yield "at the cutover", f"POST /collections/aliases, {self.collection} → {self.new_collection}"
        yield "at the contract", f"DELETE /collections/{self.copy}"


Beside = NewCollection | ReplacedCollection
"""A collection of its own."""


def _loaded(name: str) -> Iterator[Sent]:
    yield "before points are read", f"PUT /collections/{name}, configured as the old one; PUT /collections/{name}/index"
    yield "while loading", f"PUT /collections/{name}/points"
    yield "once all points are in", f"PATCH /collections/{name}, its index"
    yield "while catching up", f"PUT /collections/{name}/points; POST /collections/{name}/points/delete"
