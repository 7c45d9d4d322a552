"""Whose a collection or a vector is, as the collection's metadata say: {"vecferry": {"run_id", "space", …}}, and
{"vecferry:NAME": {…}} of a vector that was added to a collection of somebody else's."""

from collections.abc import Mapping
from typing import Any

from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.configuration import info
from tasks.stores.qdrant.errors import AbsentError
from tasks.stores.qdrant.points import path

OWNER = "vecferry"


LEAVING = f"{OWNER}/leaving"
"""The key of what is kept of a collection that is about to be deleted: no other one that gets its name has it."""


def of_vector(name: str) -> str:
    """The key of what is kept of a vector."""
    return f"{OWNER}:{name}"


def is_own(key: str) -> bool:
    """Whether an entry of metadata is one of these."""
    return key == OWNER or key.startswith((f"{OWNER}:", f"{OWNER}/"))


def read(qdrant: Qdrant, collection: str, key: str = OWNER) -> dict[str, Any] | None:
    """The entry; {} where there is a collection without one, None where there is no collection."""
    try:
        metadata = info(qdrant, collection)["config"].get("metadata") or {}
    except AbsentError:
        return None
    entry = metadata.get(key)
    return entry if isinstance(entry, dict) else {}


def write(qdrant: Qdrant, collection: str, entry: Mapping[str, Any] | None, key: str = OWNER) -> None:
    """Replaces the entry, or removes it; the others stay."""
    metadata = {key: None if entry is None else dict(entry)}
    if qdrant.rest:
        qdrant.rest.send("PATCH", path(collection), {"metadata": metadata})
        return
    with qdrant.refused():
        qdrant.client.update_collection(collection, metadata=metadata)
