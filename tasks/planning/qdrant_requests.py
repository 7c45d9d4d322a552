"""The requests to Qdrant that change something, for a plan: what is sent, and when."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tasks.stores.qdrant.places import NamedVector, NewCollection, ReplacedCollection

Sent = tuple[str, str]
"""When, and what."""


def requests(place: Any) -> list[str]:
    """A line for each."""
    return [f"{when}: {what}" for when, what in OF[place.kind](place)]


def _named_vector(place: NamedVector) -> Iterator[Sent]:
    collection = f"/collections/{place.collection}"
    yield "before points are read", f"PUT {collection}/vectors/{place.new_vector}"
    yield "while loading", f"PUT {collection}/points/vectors, {place.new_vector} alone"
    yield "while catching up", f"PUT {collection}/points/vectors; POST {collection}/points/vectors/delete"
    yield "once all points are in", f"PATCH {collection}, the index of {place.new_vector}"
    yield "at the cutover", f"PATCH {collection}, its metadata alone"
    if place.vector:
        yield "at the contract", f"DELETE {collection}/vectors/{place.vector}"


def _new_collection(place: NewCollection) -> Iterator[Sent]:
    yield from _loaded(place.new_collection)
    moved = f" in place of {place.alias_was}" if place.alias_was else ""
    yield "at the cutover", f"POST /collections/aliases, {place.alias} → {place.new_collection}{moved}"
    yield "at the contract", f"DELETE /collections/{place.collection}"


def _replaced_collection(place: ReplacedCollection) -> Iterator[Sent]:
    yield from _loaded(place.new_collection)
    yield "once all points are in", f"PUT /collections/{place.copy} and its points, the copy of {place.collection}"
    yield "at the cutover", f"PUT /collections/{place.copy}/points, until it equals {place.collection}"
    yield "at the cutover", f"DELETE /collections/{place.collection}"
    yield "at the cutover", f"POST /collections/aliases, {place.collection} → {place.new_collection}"
    yield "at the contract", f"DELETE /collections/{place.copy}"


def _loaded(name: str) -> Iterator[Sent]:
    yield "before points are read", f"PUT /collections/{name}, configured as the old one; PUT /collections/{name}/index"
    yield "while loading", f"PUT /collections/{name}/points"
    yield "once all points are in", f"PATCH /collections/{name}, its index"
    yield "while catching up", f"PUT /collections/{name}/points; POST /collections/{name}/points/delete"


OF: Mapping[str, Callable[[Any], Iterator[Sent]]] = {
    NamedVector.kind: _named_vector,
    NewCollection.kind: _new_collection,
    ReplacedCollection.kind: _replaced_collection,
}
"""By the kind of the place."""
