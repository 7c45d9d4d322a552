"""What the test server's requests share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.qdrant_storage import Collection, Storage


@dataclass
class Request:
    """One request, checked. ``names`` are those in its path; ``wait`` and ``timeout`` (seconds) are of a write."""

    operation: str
    names: dict[str, str]
    body: Any
    wait: bool = False
    timeout: float | None = None


@dataclass
class Served:
    """A folder that is served, by a version of Qdrant, and what a test has set."""

    storage: Storage
    version: str
    status: str | None = None
    """A colour that every collection has until it is taken back; while it is not green, no optimizer runs."""
    optimizing: float = 0.2
    """Seconds for which a collection is yellow after a change, once it is large enough for an index."""
    lag: float = 0.0
    """Seconds from the acknowledgement of a write that does not wait to its effect."""
    waiting: dict[str, list[Callable[[], Any]]] = field(default_factory=dict)
    """Writes that were acknowledged and have not had their effect, by collection."""

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    @property
    def unoptimized(self) -> bool:
        """Whether optimizers are kept from running."""
        return self.status not in (None, "green")


def at(served: Served, request: Request) -> Collection:
    """The collection that a request names. Raises Refused where there is none."""
    collection = served.storage.collection(request.names["collection_name"])
    if not served.unoptimized:
        collection.deferred.clear()
    return collection
