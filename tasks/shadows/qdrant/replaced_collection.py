"""A collection that takes the name of the old one. An alias cannot take the name of a collection that is there, so the old points go
on in a copy, the old collection is deleted, and its name becomes an alias in the next call: the gap between the two is all that a
reader sees. Nothing locks writes, so writers pause."""

import time
from dataclasses import dataclass

from qdrant_client import models

from tasks.base.errors import TransientError, UsageError, VerificationRefused
from tasks.base.progress import Tell, quiet
from tasks.base.words import counted
from tasks.runs.commands import command
from tasks.runs.plan import Target
from tasks.shadows.difference import Difference
from tasks.shadows.qdrant import aliases, marks
from tasks.shadows.qdrant.aliases import target_of
from tasks.shadows.qdrant.beside import BesideShadow, held_back, refuse_aliased
from tasks.shadows.qdrant.copying import Copy, bring
from tasks.stores.interface import Built
from tasks.stores.qdrant import configuration, indexing
from tasks.stores.qdrant.places import ReplacedCollection

HANDING_OVER = "handing_over"
"""What the metadata of the copy say from the moment on that the old collection may be gone."""
PASSES = 5
"""Over both collections, until one finds nothing: more, and somebody is writing."""
TRIES, PAUSE = 60, 0.5
"""Of the alias call, while the server cannot be reached; seconds between two."""


@dataclass(frozen=True)
class ReplacedCollectionShadow(BesideShadow):
    """Satisfies Shadow."""

    target: Target[ReplacedCollection]

    def old_collection(self) -> str:
        """Raises UsageError where somebody has made a collection of that name while it changed hands."""
        place, qdrant = self.target.place, self.qdrant
        if place.collection not in qdrant.collections():
            return place.copy
        if self._is_own_copy(HANDING_OVER) and not marks.read(qdrant, place.collection, marks.LEAVING):
            raise UsageError(
                f"somebody made a collection {place.collection} while the name changed hands; the old points are in {place.copy}: "
                f"delete that collection, then {self._command('cutover')}"
            )
        return place.collection

    def expand(self) -> None:
        self.finish()
        super().expand()

    def index(self) -> Built:
        """Fills the copy too."""
        built = super().index()
        if not self._handed_over():
            self._bring_copy()
        return built

    def active(self) -> bool:
        self.finish()
        return super().active()

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        self.finish()
        return super().follow(max_deleted, tell, only)

    def ready_to_switch(self) -> None:
        place, qdrant = self.target.place, self.qdrant
        current = qdrant.aliases().get(place.collection)
        if self._handed_over() and current != place.copy:
            raise VerificationRefused(
                f"alias {place.collection} no longer points to {place.copy} (it {target_of(current)}), so it was not moved: point it "
                f"to {place.copy}, then {self._command('cutover')}"
            )
        if not self._handed_over():
            refuse_aliased(qdrant, place.collection, "delete")
            self._agree()
        self.mark_used()

    def switching(self) -> list[models.AliasOperations]:
        """After a rollback the name is an alias already, and moves with the others."""
        place = self.target.place
        return [aliases.pointing(place.new_collection, place.collection)] if self._handed_over() else []

    def switch(self) -> None:
        """The name changes hands."""
        place, qdrant = self.target.place, self.qdrant
        if self._handed_over():
            return
        marks.write(qdrant, place.collection, self._copied(), marks.LEAVING)
        marks.write(qdrant, place.copy, {**self._copied(), HANDING_OVER: True})
        aliases.drop(qdrant, place.collection)
        self.finish()
        self.old_collection()

    def finish(self) -> None:
        """Gives the name to the new collection where a start was killed before it could."""
        place, qdrant = self.target.place, self.qdrant
        for attempt in range(1, TRIES + 1):
            try:
                if not self._in_gap():
                    return
                aliases.change(qdrant, [aliases.pointing(place.new_collection, place.collection)])
                return
            except TransientError:
                if attempt == TRIES:
                    raise
                time.sleep(PAUSE)

    def advice(self) -> list[str]:
        place, model = self.target.place, self.run.plan.request.embedder
        using = f", using={place.new_vector!r}" if place.new_vector != place.vector else ""
        return [
            f"{place.collection} is an alias of {place.new_collection} now, and the old points are in {place.copy}: in the application, "
            f"make the vectors of queries and of new points by {model}: {counted(place.dimensions, 'dimension')}, {place.distance}{using}"
        ]

    def take_back(self, switched: bool) -> list[str]:
        self.finish()
        place, qdrant = self.target.place, self.qdrant
        current = qdrant.aliases().get(place.collection)
        if current == place.new_collection:
            aliases.change(qdrant, [aliases.pointing(place.copy, place.collection)])
            return [
                f"{place.collection} is an alias of {place.copy} now, which has the old points; {place.new_collection} is kept, and what "
                f"was written to it since the switch is not in {place.copy}"
            ]
        if not switched:
            return [f"{place.name} was not switched; {self.drop_new()}", *self._drop_copy(current)]
        if current != place.copy:
            raise UsageError(
                f"{place.collection} no longer points to {place.new_collection} (it {target_of(current, 'is a collection')}), so it was "
                f"left alone: point it to {place.new_collection}, then {self._command('rollback')}"
            )
        return [f"{place.collection} points to {place.copy} already; {place.new_collection} is kept"]

    def contract(self) -> list[str]:
        self.finish()
        place, qdrant = self.target.place, self.qdrant
        current = qdrant.aliases().get(place.collection)
        if current != place.new_collection:
            raise UsageError(
                f"{place.collection} no longer points to {place.new_collection} (it {target_of(current, 'is not an alias')}), so "
                f"{place.copy} was not dropped: point it to {place.new_collection}, then {self._command('contract')}"
            )
        dropped = self._is_own_copy()
        if dropped:
            refuse_aliased(qdrant, place.copy, "drop")
            aliases.drop(qdrant, place.copy)
        self.known.drop()
        return [f"dropped collection {place.copy}"] if dropped else []

    def _bring_copy(self) -> int:
        """Makes the copy where it is missing; how many points it was not in line by."""
        place, qdrant = self.target.place, self.qdrant
        like, owner = configuration.read(qdrant, place.collection), marks.read(qdrant, place.copy)
        if owner is None:
            metadata = {**like.get("metadata", {}), marks.OWNER: self._copied()}
            metadata.pop(marks.LEAVING, None)
            wanted = {**like, "metadata": metadata, "optimizer_config": held_back(like)}
            configuration.create(qdrant, place.copy, wanted)
        elif owner.get("run_id") != self.run.run_id or owner.get("copy_of") != place.collection:
            raise UsageError(
                f"collection {place.copy} exists and is not run {self.run.run_id}'s copy: rename it, or delete it"
            )
        source, there = (self.records(name, place.vector) for name in (place.collection, place.copy))
        differing = bring(Copy(self.run, source, there))
        if indexing.is_held_back(qdrant, place.copy):
            configuration.complete(qdrant, place.copy, like)
            indexing.put_back(qdrant, place.copy, like.get("optimizer_config") or {})
            indexing.wait_for_green(qdrant, place.copy)
        return differing

    def _agree(self) -> None:
        """Brings both collections in line until a pass over each finds nothing. Raises VerificationRefused where none does."""
        place, left = self.target.place, 0
        for _ in range(PASSES):
            left = self._bring_copy() + super().follow(1.0).touched
            if not left and self._counts_agree():
                return
        raise VerificationRefused(
            f"{place.collection} is being written to: {counted(left, 'point')} changed during the last of {counted(PASSES, 'pass')}, and "
            f"nothing was switched. Pause what writes to it, then {self._command('cutover')}"
        )

    def _counts_agree(self) -> bool:
        place = self.target.place
        source, copy = (self.records(name, place.vector).count() for name in (place.collection, place.copy))
        return source == copy

    def _drop_copy(self, current: str | None) -> list[str]:
        """Of a run that was never switched: the name still is the old collection itself."""
        place = self.target.place
        if current == place.copy:
            return [f"{place.collection} stays an alias of {place.copy}"]
        if not self._handed_over():
            marks.write(self.qdrant, place.collection, None, marks.LEAVING)
            if self._is_own_copy():
                aliases.drop(self.qdrant, place.copy)
        return []

    def _handed_over(self) -> bool:
        """Whether the old collection is gone, and its points are in the copy alone."""
        return self.target.place.collection not in self.qdrant.collections()

    def _in_gap(self) -> bool:
        place, qdrant = self.target.place, self.qdrant
        if place.collection in qdrant.collections() or place.collection in qdrant.aliases():
            return False
        return self._is_own_copy(HANDING_OVER)

    def _is_own_copy(self, also: str = "copy_of") -> bool:
        owner = marks.read(self.qdrant, self.target.place.copy) or {}
        return owner.get("run_id") == self.run.run_id and bool(owner.get(also))

    def _copied(self) -> dict[str, str]:
        return {"run_id": self.run.run_id, "copy_of": self.target.place.collection}

    def _command(self, verb: str) -> str:
        return command(verb, self.run.run_id, self.run.plan.request.database)
