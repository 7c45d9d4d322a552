"""What the shadows of targets in Qdrant have in common. The ledger lies elsewhere: a batch is marked once its write was
acknowledged, and may be written twice without harm."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from qdrant_client import models

from tasks.base.words import agreeing, counted
from tasks.embedders.interface import RowError
from tasks.runs.checkpoints import Mark
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Difference
from tasks.shadows.qdrant import sifting
from tasks.shadows.qdrant.known import Known, Notes
from tasks.shadows.qdrant.points import NO_DOCUMENT, digests, values
from tasks.stores import registry
from tasks.stores.postgres.lookup import Lookup
from tasks.stores.qdrant import indexing
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.configuration import info
from tasks.stores.qdrant.records import QdrantRecords
from tasks.stores.qdrant.store import QdrantStore

PATIENCE = 60.0
"""Seconds that a verification waits for the index of what was written last; an application that goes on writing may never let it
end."""
NAMED = {"image": "an image", "text": "a text"}
"""What a point lacks that names nothing, by what the model is given."""


@dataclass(frozen=True)
class Vectors(QdrantRecords):
    """The new vectors. They are counted, not the points: those that were set aside are there too, without one."""

    notes: Notes

    def count(self) -> int:
        chosen = models.Filter(must=[models.HasVectorCondition(has_vector=self.shape.name)])
        with self.qdrant.refused():
            return self.qdrant.client.count(self.name, chosen, exact=True).count

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        drawn = super().sample(rows, content=content or settled)
        return map(self._settled, drawn) if settled else drawn

    def _settled(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Those that say what they said when the run wrote their vector."""
        known, told = self.notes.of(rows["id"].to_pylist()), digests(rows)
        return rows.filter(
            pa.array([name in known and known[name].is_of(one) for name, one in told.items()], pa.bool_())
        )


@dataclass(frozen=True)
class QdrantShadow(ABC):
    """One target's place in Qdrant. A subclass gives what is its own."""

    run: Run
    target: Target[Any]

    @abstractmethod
    def expand(self) -> None:
        """Makes the place, before anything is read from the source."""

    @abstractmethod
    def write(self, page: pa.Table, rejected: pa.Table | None, reloading: bool) -> dict[str, Known]:
        """Puts in a page of a batch, and returns what is then known of its points."""

    @abstractmethod
    def active(self) -> bool:
        """Whether the store says that the new vectors are what people use."""

    @abstractmethod
    def ready_to_switch(self) -> None:
        """Makes ready for the switch. Raises VerificationRefused where it would overwrite what somebody else made."""

    def switching(self) -> list[models.AliasOperations]:
        """What of one atomic call switches it."""
        return []

    @abstractmethod
    def switch(self) -> None:
        """What of the switch no alias does."""

    @abstractmethod
    def settle(self) -> Difference:
        """The last pass, after the switch: brings what changed between the pass before it and the switch."""

    @abstractmethod
    def advice(self) -> list[str]:
        """What the application has to be told once it is switched."""

    @abstractmethod
    def take_back(self, switched: bool) -> list[str]:
        """The reverse of the switch, or of everything where nothing was switched yet; says what was done."""

    @abstractmethod
    def contract(self) -> list[str]:
        """Drops what only ``take_back`` would need; says what."""

    @property
    def known(self) -> Notes:
        """What the run has written."""
        return Notes(self.run, self.target.number)

    @property
    def qdrant(self) -> Qdrant:
        """The server, or the directory, opened."""
        return self.store(None).qdrant

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What is kept with the vectors that the run makes."""
        return {"run_id": self.run.run_id, "space": self.target.space}

    def store(self, vector: str | None, others: Sequence[str] | None = None) -> QdrantStore:
        """The store, to read that vector of a collection, and ``others`` of its points beside; None: those of the plan."""
        own = {"vector": vector, **({} if others is None else {"others": list(others)})}
        source = registry.open_source({**self.run.plan.request.source, **own}, None, True, self.run.connection)
        assert isinstance(source, QdrantStore)
        return source

    def records(self, collection: str, vector: str, others: Sequence[str] | None = None) -> QdrantRecords:
        """The points of a collection with one of its vectors. Raises UsageError where there is no such thing."""
        return self.store(vector, others).records(collection)

    def vectors(self, others: Sequence[str] | None = None) -> Vectors:
        """The new vectors."""
        records = self.records(self.target.place.holder, self.target.place.new_vector, others)
        return Vectors(**vars(records), notes=self.known)

    def sift(self, page: pa.Table, refused: Mapping[int, RowError]) -> tuple[pa.Table, pa.Table | None]:
        return sifting.sift(self.run, page, refused)

    def load(self, page: pa.Table, rejected: pa.Table | None, reloading: bool, mark: Mark) -> bool:
        if mark.is_set():
            return False
        written = self.write(page, rejected, reloading)
        with self.run.connection() as connection, connection.transaction():
            if mark.is_written(connection):
                return False
            self.known.note(written, connection)
            mark.write(connection)
        return True

    def key(self) -> bool:
        return False

    def indexed(self) -> float:
        now = info(self.qdrant, self.target.place.holder)
        points = now.get("points_count") or 0
        return min(1.0, (now.get("indexed_vectors_count") or 0) / points) if points else 0.0

    def reread(self) -> None:
        self.known.reread()

    def notes(self) -> list[str]:
        """What the collection of the new vectors holds, and which rows of a lookup no point names. Waits until it is indexed, for
        ``PATIENCE`` at most."""
        there = self.vectors(others=())
        state = indexing.settled(there.qdrant, there.name, PATIENCE)
        points, filled = QdrantRecords.count(there), there.count()
        nameless, refused = self.known.set_aside(NO_DOCUMENT)
        lines = [
            f"{counted(points, 'point')} in {there.name}, which is {state}: {counted(filled, 'point')} with the new vector, "
            f"{counted(nameless, 'point')} without {NAMED[self.target.content.gives]}, {counted(refused, 'point')} quarantined for "
            "another reason"
        ]
        if lookup := self.run.plan.request.source.get("lookup"):
            table = Lookup(**lookup)
            rows, first = table.unnamed(values(there.qdrant, there.name, table.key))
            shown = ", ".join(map(repr, first))
            lines += (
                [f"{counted(rows, 'row')} of {table.table} {agreeing(rows, 'have')} no point: {shown}"] if rows else []
            )
        return lines

    def coverage(self) -> None:
        return None

    def stuck(self) -> None:
        return None

    def changed(self, passes: Difference) -> Difference:
        return passes
