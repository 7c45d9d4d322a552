"""A second named vector of the points that people use. Payloads stay where they are; the application says with each search which
vector it means, so the switch is a word in the collection's metadata."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from qdrant_client import models

from tasks.base.errors import UsageError, VerificationRefused
from tasks.base.progress import Tell, quiet
from tasks.base.words import agreeing, counted
from tasks.runs.plan import Target
from tasks.shadows.difference import Difference
from tasks.shadows.qdrant import guards, marks, named_comparing
from tasks.shadows.qdrant.known import Known
from tasks.shadows.qdrant.named_comparing import Comparison, Old
from tasks.shadows.qdrant.points import count_with, digests, point_ids
from tasks.shadows.qdrant.shadow import QdrantShadow
from tasks.stores.interface import Built, Records
from tasks.stores.qdrant import configuration, indexing, shapes, writing
from tasks.stores.qdrant.places import NamedVector
from tasks.stores.qdrant.points import path
from tasks.stores.qdrant.records import QdrantRecords
from tasks.stores.qdrant.shapes import UNNAMED, called

ACTIVE = "active"
"""What is kept of a vector that people use."""
INFERRED = ("hnsw_config", "quantization_config", "on_disk")
"""What of a vector's configuration it gets once it is there."""


@dataclass(frozen=True)
class NamedVectorShadow(QdrantShadow):
    """Satisfies Shadow."""

    target: Target[NamedVector]

    def expand(self) -> None:
        """Claims the name before it is made: whose it is can be told at any moment after."""
        place, qdrant = self.target.place, self.qdrant
        there, owner = self._is_there(), self._owner()
        if owner.get("run_id") != self.run.run_id:
            if there:
                raise UsageError(
                    f"collection {place.collection} has {called(place.new_vector)} already, and "
                    f"{'run ' + owner['run_id'] if owner.get('run_id') else 'not vecferry'} made it: choose another vector_name"
                )
            marks.write(qdrant, place.collection, self.fingerprint, self._key)
        if there:
            return
        old = self._old_params()
        config = models.DenseVectorConfig(size=place.dimensions, distance=place.distance, datatype=old.get("datatype"))
        with qdrant.refused():
            qdrant.client.create_vector_name(
                place.collection, place.new_vector, models.DenseVectorNameConfig(dense=config)
            )
        if qdrant.server.indexes:  # the graph of a vector that is being filled is built once, and not with every batch
            self._configure({"hnsw_config": {"m": 0}})

    def write(self, page: pa.Table, rejected: pa.Table | None, reloading: bool) -> dict[str, Known]:
        place = self.target.place
        kept = page.filter(pc.is_valid(page["embedding"]))
        only = None if reloading else {"must_not": [{"has_vector": place.new_vector}]}
        named_comparing.put(self._comparison(apply=True), kept, only)
        known = {name: Known(one.document) for name, one in digests(page).items()}
        if rejected:
            if reloading:
                self._remove(rejected["id"].to_pylist())
            known |= {name: Known(one.document, refused=True) for name, one in digests(rejected).items()}
        return known

    def index(self) -> Built:
        qdrant, place = self.qdrant, self.target.place
        if qdrant.server.indexes:
            like, old = configuration.read(qdrant, place.collection), self._old_params()
            hnsw = {"m": like["hnsw_config"]["m"], **(old.get("hnsw_config") or {})}
            self._configure({**{name: old[name] for name in INFERRED if name in old}, "hnsw_config": hnsw})
            indexing.wait_for_green(qdrant, place.collection)
        return Built()

    @contextmanager
    def made(self) -> Iterator[Records]:
        if not self._is_there():
            raise UsageError(f"collection {self.target.place.collection} has no {called(self.target.place.new_vector)}")
        yield self.vectors()

    def old(self) -> Any:
        place = self.target.place
        if place.vector not in shapes.shapes(configuration.read(self.qdrant, place.collection)):
            return None
        return self._old()

    def in_use(self) -> bool:
        return True

    def active(self) -> bool:
        return bool(self._owner().get(ACTIVE))

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return named_comparing.compare(self._comparison(apply=True), only, tell)

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return named_comparing.compare(self._comparison(apply=False), only, tell)

    def ready_to_switch(self) -> None:
        if not self._is_there():
            raise VerificationRefused(
                f"collection {self.target.place.collection} has no {called(self.target.place.new_vector)} any more"
            )

    def switch(self) -> None:
        self._mark({ACTIVE: True})

    def settle(self) -> Difference:
        return self.follow(1.0)

    def advice(self) -> list[str]:
        place, model = self.target.place, self.run.plan.request.embedder
        return [
            f"in the application, search {place.collection} with using={place.new_vector!r}, and make the vectors of queries and of new "
            f"points by {model}: {counted(place.dimensions, 'dimension')}, {place.distance}; a point that is upserted whole needs this "
            "vector too"
        ]

    def take_back(self, switched: bool) -> list[str]:
        place = self.target.place
        if self.active():
            self._mark({})
        if switched:
            return [self._went_back()]
        if self._owner().get("run_id") == self.run.run_id:
            if self._is_there():
                self._delete_name(place.new_vector)
            marks.write(self.qdrant, place.collection, None, self._key)
        self.known.drop()
        return [f"{place.name} was not switched; the vector was dropped, and the snapshot is kept"]

    def contract(self) -> list[str]:
        place = self.target.place
        if place.vector not in shapes.shapes(configuration.read(self.qdrant, place.collection)):
            return []
        if place.vector == UNNAMED:
            return [f"the {called(UNNAMED)} of {place.collection} stays: Qdrant drops no vector without a name"]
        self._delete_name(place.vector)
        return [f"dropped {called(place.vector)} of {place.collection}"]

    @property
    def _key(self) -> str:
        return marks.of_vector(self.target.place.new_vector)

    def _owner(self) -> dict[str, Any]:
        return marks.read(self.qdrant, self.target.place.collection, self._key) or {}

    def _mark(self, more: dict[str, Any]) -> None:
        marks.write(self.qdrant, self.target.place.collection, {**self.fingerprint, **more}, self._key)

    def _is_there(self) -> bool:
        place = self.target.place
        return place.new_vector in shapes.shapes(configuration.read(self.qdrant, place.collection))

    def _old_params(self) -> dict[str, Any]:
        place = self.target.place
        vectors = configuration.read(self.qdrant, place.collection)["params"]["vectors"]
        old: dict[str, Any] = vectors if place.vector == UNNAMED and "size" in vectors else vectors[place.vector]
        return old

    def _configure(self, params: dict[str, Any]) -> None:
        place, qdrant = self.target.place, self.qdrant
        assert qdrant.rest
        qdrant.rest.send("PATCH", path(place.collection), {"vectors": {place.new_vector: params}})

    @contextmanager
    def _old(self) -> Iterator[Records]:
        yield self.records(self.target.place.collection, self.target.place.vector)

    def _comparison(self, apply: bool) -> Comparison:
        place, model = self.target.place, self.run.plan.request.old_embedder
        there = self.vectors(others=())
        config = configuration.read(there.qdrant, there.name)
        active = bool((config.get("metadata") or {}).get(self._key, {}).get(ACTIVE))
        kept = active and model and place.vector in shapes.shapes(config)
        return Comparison(
            self.run,
            self.target,
            self.known,
            there,
            active=active,
            conditional=guards.conditional(there.qdrant, config),
            apply=apply,
            old=Old(self.records(place.collection, place.vector, ()), model) if kept and model else None,
        )

    def _remove(self, ids: list[str]) -> None:
        place = self.target.place
        writing.delete_vectors(self.qdrant, place.collection, [place.new_vector], point_ids(ids))

    def _went_back(self) -> str:
        """What is gone back to, and which points it does not find."""
        place, qdrant = self.target.place, self.qdrant
        every, old = QdrantRecords.count(self.vectors()), count_with(qdrant, place.collection, place.vector)
        lost = counted(every - old, "point", "have")
        without = (
            f"; {lost} none, and searches by it do not find {agreeing(every - old, 'them')}" if every > old else ""
        )
        return f"search {place.collection} with its {called(place.vector)} again; {place.new_vector} is kept{without}"

    def _delete_name(self, name: str) -> None:
        qdrant = self.qdrant
        with qdrant.refused():
            qdrant.client.delete_vector_name(self.target.place.collection, name)
