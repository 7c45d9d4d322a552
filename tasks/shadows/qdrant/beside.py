"""A collection of its own beside the old one: made with all of its configuration, filled, and followed."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.base.errors import UsageError, VerificationRefused
from tasks.base.progress import Tell, quiet
from tasks.base.words import agreeing, counted
from tasks.runs.commands import command
from tasks.runs.plan import Target
from tasks.shadows.difference import Difference
from tasks.shadows.qdrant import aliases, comparing, guards, marks
from tasks.shadows.qdrant.comparing import Comparison
from tasks.shadows.qdrant.known import Known
from tasks.shadows.qdrant.points import contents, digests
from tasks.shadows.qdrant.shadow import QdrantShadow
from tasks.stores.interface import Built, Records
from tasks.stores.qdrant import configuration, indexing
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.configuration import Configuration
from tasks.stores.qdrant.places import Beside
from tasks.stores.qdrant.shapes import UNNAMED

USED = "used"
"""What the metadata of the new collection say from its first switch on."""


@dataclass(frozen=True)
class BesideShadow(QdrantShadow):
    """Satisfies Shadow, with what its subclasses say of the switch."""

    target: Target[Beside]

    @abstractmethod
    def old_collection(self) -> str:
        """Where the old points are now."""

    def expand(self) -> None:
        place, qdrant = self.target.place, self.qdrant
        owner = marks.read(qdrant, place.new_collection)
        if owner is None:
            wanted = configured(configuration.read(qdrant, self.old_collection()), place, self.fingerprint)
            configuration.create(qdrant, place.new_collection, wanted)
        elif owner.get("run_id") != self.run.run_id:
            raise UsageError(
                f"collection {place.new_collection} exists and {_whose(owner)}: choose another name with new_collection"
            )

    def write(self, page: pa.Table, rejected: pa.Table | None, reloading: bool) -> dict[str, Known]:
        comparison, rows = self._comparison(apply=True), comparing.whole(page, rejected)
        if reloading and comparison.used_before:
            rows = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(self._theirs(rows), pa.string()))))
        return comparing.write(comparison, rows) if rows.num_rows else {}

    def index(self) -> Built:
        qdrant, name = self.qdrant, self.target.place.new_collection
        like = configuration.read(qdrant, self.old_collection())
        configuration.complete(qdrant, name, like)
        indexing.put_back(qdrant, name, like.get("optimizer_config") or {})
        indexing.wait_for_green(qdrant, name)
        return Built()

    @contextmanager
    def made(self) -> Iterator[Records]:
        yield self.vectors()

    @contextmanager
    def old(self) -> Iterator[Records]:
        yield self.records(self.old_collection(), self.target.place.vector)

    def active(self) -> bool:
        return self.qdrant.aliases().get(self.target.place.alias) == self.target.place.new_collection

    def in_use(self) -> bool:
        """Since the first switch, a way back or not: points without a vector, and points of their own, stay there."""
        owner = marks.read(self.qdrant, self.target.place.new_collection) or {}
        return bool(owner.get(USED)) or self.active()

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        comparison = self._comparison(apply=True)
        if comparison.used and only is None:
            self._guard_deletes(comparison, max_deleted)
        return comparing.compare(comparison, only, tell)

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return comparing.compare(self._comparison(apply=False), only, tell)

    def notes(self) -> list[str]:
        qdrant, place, told = self.qdrant, self.target.place, super().notes()
        if self.old_collection() not in qdrant.collections():
            return told
        wanted = configured(configuration.read(qdrant, self.old_collection()), place, {})
        there, optimizer = configuration.read(qdrant, place.new_collection), wanted["optimizer_config"]
        waits = indexing.is_held_back(qdrant, place.holder)
        settings = (indexing.THRESHOLD, indexing.HIDING)
        passed = [f"optimizer_config.{name}" for name in settings if waits or name not in optimizer]
        lines = configuration.differences(wanted, there, ["metadata", *passed])
        return [*told, f"the configuration of {place.new_collection} differs: {'; '.join(lines)}"] if lines else told

    def settle(self) -> Difference:
        return self.follow(1.0)

    def mark_used(self) -> None:
        """Before the switch: from then on what is in the new collection may be the application's."""
        marks.write(self.qdrant, self.target.place.new_collection, {**self.fingerprint, USED: True})

    def refuse_changed(self) -> None:
        """Raises VerificationRefused where the old collection says what the new one does not."""
        if changed := self.compare().touched:
            raise VerificationRefused(
                f"{counted(changed, 'point')} of {self.old_collection()} changed and {agreeing(changed, 'are')} not in "
                f"{self.target.place.new_collection} yet: {command('catch-up', self.run.run_id, self.run.plan.request.database)}"
            )

    def drop_new(self) -> str:
        """Drops the new collection, which nobody uses. Raises UsageError where somebody gave it another alias."""
        place, qdrant = self.target.place, self.qdrant
        if (marks.read(qdrant, place.new_collection) or {}).get("run_id") == self.run.run_id:
            refuse_aliased(qdrant, place.new_collection, "drop")
            aliases.drop(qdrant, place.new_collection)
        self.known.drop()
        return f"collection {place.new_collection} was dropped, and the snapshot is kept"

    def _comparison(self, apply: bool) -> Comparison:
        there, old = self.vectors(), self.old_collection()
        if old not in there.qdrant.collections():
            raise UsageError(f"{old} is not there any more, so {there.name} cannot be compared with it")
        owner = marks.read(there.qdrant, there.name) or {}
        return Comparison(
            self.run,
            self.target,
            self.known,
            self.records(old, self.target.place.vector, list(there.reading.others)),
            there,
            used=self.active(),
            used_before=bool(owner.get(USED)),
            conditional=guards.conditional(there.qdrant, configuration.read(there.qdrant, there.name)),
            apply=apply,
        )

    def _theirs(self, rows: pa.Table) -> list[str]:
        """Those of the rows whose points say what the run did not write."""
        ids = rows["id"].to_pylist()
        known = self.known.of(ids)
        there = digests(contents(self.vectors(), ids))
        return [name for name, one in there.items() if name not in known or not known[name].wrote(one.payload)]

    def _guard_deletes(self, comparison: Comparison, max_deleted: float) -> None:
        offered, there = comparison.source.count(), comparison.there.count()
        if there and offered < there * (1 - max_deleted):
            raise VerificationRefused(
                f"{comparison.there.name} holds {counted(there, 'vector')} and {comparison.source.name} only "
                f"{counted(offered, 'point')}: catching up would delete more than {max_deleted:.0%} of what people use, so "
                "nothing was touched. If that is intended, run it with -p gates.max_deleted=1"
            )


def configured(old: Configuration, place: Beside, mark: dict[str, Any]) -> Configuration:
    """The configuration of the new collection: all of the old one's but its vector; nothing is indexed until it is filled."""
    new = configuration.resized(old, place.vector, place.dimensions, place.distance)
    params = new["params"]
    vectors = {UNNAMED: params["vectors"]} if "size" in params["vectors"] else dict(params["vectors"])
    vectors = {place.new_vector if name == place.vector else name: one for name, one in vectors.items()}
    alone = vectors[UNNAMED] if list(vectors) == [UNNAMED] else vectors
    metadata = {key: value for key, value in old.get("metadata", {}).items() if not marks.is_own(key)}
    return {
        **new,
        "params": {**params, "vectors": alone},
        "metadata": {**metadata, **({marks.OWNER: mark} if mark else {})},
        "optimizer_config": held_back(old) if mark else old.get("optimizer_config", {}),
    }


def held_back(old: Configuration) -> dict[str, Any]:
    """The optimizer's settings under which nothing is indexed, and nothing hidden until it is."""
    settings = old.get("optimizer_config", {})
    return {**settings, indexing.THRESHOLD: 0, **({indexing.HIDING: False} if settings.get(indexing.HIDING) else {})}


def refuse_aliased(qdrant: Qdrant, collection: str, doing: str) -> None:
    """Raises UsageError where an alias points to a collection that is to be dropped."""
    if names := sorted(alias for alias, current in qdrant.aliases().items() if current == collection):
        raise UsageError(
            f"alias {names[0]} points to {collection}, which this would {doing}: point it to another collection, or delete it first"
        )


def _whose(owner: dict[str, Any]) -> str:
    return f"belongs to run {owner['run_id']}" if owner.get("run_id") else "is not vecferry's"
