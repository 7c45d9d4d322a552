"""A whole migration in added files: collections of the in-memory store get vectors of another model, in a collection beside
them that an alias of the store comes to point to.

This is all that a new kind of target takes: a place, a shadow, the unit that switches it, a planner, a form and a flow; and a
line for each in its registry. No stage, check or verb knows of it.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import pyarrow as pa
import pytest
from prefect import State, flow
from pydantic import Field

from flows.forms import registry as forms
from flows.forms.form import form
from flows.forms.shared import LEDGER, Migration
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from tasks.base import stored
from tasks.base.progress import Tell, quiet
from tasks.base.words import counted
from tasks.embedders.interface import RowError
from tasks.embedders.registry import open_embedder
from tasks.planning import registry as planning
from tasks.planning.planned import Draft, Listing, Look, Planned
from tasks.runs import parts, quarantine
from tasks.runs.checkpoints import Mark
from tasks.runs.database import Database
from tasks.runs.names import check_run_id, suffix
from tasks.runs.plan import Plan, Request, Target
from tasks.runs.run import Run
from tasks.runs.vectors import embedded
from tasks.shadows import registry as shadows
from tasks.shadows.difference import Difference, named
from tasks.stores import memory, place
from tasks.stores.interface import Built, Collection, Records
from tasks.stores.memory import MemoryStore
from tasks.stores.records import with_hash

FLOW = "memory"
COLUMNS = ["id", "document", "metadata", "uri", "embedding"]
aliases: dict[tuple[str, str], str] = {}
"""What the application reads: store and alias → collection."""


@dataclass(frozen=True, kw_only=True)
class AliasedCollection:
    """A collection of the same store, which an alias points to once it is switched. Satisfies Place."""

    kind: ClassVar[str] = "aliased_collection"
    store: ClassVar[str] = "memory"
    loads: ClassVar[bool] = True
    at_once: ClassVar[bool] = False
    partial: ClassVar[bool] = False
    followed: ClassVar[bool] = True
    followed_after_contract: ClassVar[bool] = True

    where: str
    """The store's name."""
    alias: str
    collection: str
    dimensions: int

    @property
    def name(self) -> str:
        return f"{self.where}:{self.alias}"

    @property
    def label(self) -> str:
        return self.alias

    def shape(self, rows: int) -> str:
        return f"{self.name}: vector size {self.dimensions}, {counted(rows, 'row')}"

    @property
    def queue(self) -> None:
        return None

    @property
    def rows(self) -> str:
        return ""

    @property
    def vector_type(self) -> str:
        return "float32"

    @property
    def row_bytes(self) -> int:
        return 4 * self.dimensions

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return stored.read(cls, data)


@dataclass(frozen=True)
class CollectionShadow:
    """Satisfies Shadow."""

    run: Run
    target: Target[AliasedCollection]

    @property
    def kept(self) -> MemoryStore:
        return memory.named(self.target.place.where)

    @property
    def name(self) -> str:
        return self.target.place.collection

    def expand(self) -> None:
        if self.name not in self.kept.described:
            was = self.target.collection
            self.kept.create(Collection(self.name, "", 0, self.target.dimensions, was.metric))

    def sift(self, page: pa.Table, refused: Mapping[int, RowError]) -> tuple[pa.Table, pa.Table | None]:
        if not refused:
            return page, None
        bad = sorted(refused)
        rejected = page.take(bad).append_column("class", pa.array([refused[i].kind for i in bad]))
        rejected = rejected.append_column("message", pa.array([refused[i].message for i in bad]))
        return page.take([i for i in range(page.num_rows) if i not in refused]), rejected

    def load(self, page: pa.Table, rejected: pa.Table | None, reloading: bool, mark: Mark) -> bool:
        if mark.is_set():
            return False
        self._write(page)
        mark.alone()  # the write may come twice, and does no harm then
        return True

    def key(self) -> bool:
        return False

    def index(self) -> Built:
        return Built()

    def indexed(self) -> float:
        return 0.0

    @contextmanager
    def made(self) -> Iterator[Records]:
        yield self.kept.records(self.name)

    @contextmanager
    def old(self) -> Iterator[Records]:
        yield self.kept.records(self.target.collection.name)

    def in_use(self) -> bool:
        return aliases.get((self.target.place.where, self.target.place.alias)) == self.name

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return self._difference(only, apply=True)

    def reread(self) -> None:
        pass

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        return self._difference(only, apply=False)

    def coverage(self) -> None:
        return None

    def stuck(self) -> None:
        return None

    def notes(self) -> list[str]:
        return []

    def changed(self, passes: Difference) -> Difference:
        return passes

    def _difference(self, only: list[str] | None, apply: bool) -> Difference:
        source = self.run.records(self.target)
        ids = source.ids() if not self.target.limit else parts.listed_ids(self.run, self.target)
        wanted = ids.to_pylist() if only is None else only
        records = with_hash(pa.Table.from_batches([source.fetch(wanted)]))
        rows = {row["id"]: row for row in records.to_pylist()}
        there = self.kept.rows[self.name]
        missing = [name for name in rows if name not in there]
        stale = [name for name in rows if name in there and not _same(rows[name], there[name])]
        orphaned = [name for name in (list(there) if only is None else only) if name in there and name not in rows]
        refused: list[str] = []
        if missing or stale:
            kept = pa.array([name in {*missing, *stale} for name in rows])
            page, why = embedded(self.run, self.target, records.filter(kept))
            page, rejected = self.sift(page, why)
            refused = rejected["id"].to_pylist() if rejected else []
            if apply:
                self._write(page)
                if rejected:
                    quarantine.keep_page(self.run, self.target.number, rejected)
        if apply:
            self.kept.delete(self.name, orphaned)
        out = set(refused)
        return Difference(
            compared=len(rows) - len(out),
            missing=named([name for name in missing if name not in out]),
            stale=named([name for name in stale if name not in out]),
            orphaned=named(orphaned),
            quarantined=named(refused),
            listed=len(wanted),
            counted=(source.count(),) * 2 if only is None else None,
        )

    def _write(self, page: pa.Table) -> None:
        for batch in page.select(COLUMNS).combine_chunks().to_batches():
            self.kept.write(self.name, batch)


def _same(source: dict[str, Any], row: dict[str, Any]) -> bool:
    return all(source[name] == row[name] for name in ("document", "metadata", "uri"))


@dataclass(frozen=True)
class AliasUnit:
    """Satisfies Unit: the alias is switched in one step, and the mark set after it."""

    run: Run
    shadows: tuple[CollectionShadow, ...]

    def active(self) -> bool:
        return all(shadow.in_use() for shadow in self.shadows)

    def dependents(self) -> list[str]:
        return []

    def stuck(self) -> list[str]:
        return []

    def switch(self, mark: Mark) -> list[str]:
        aliases.update({_alias(shadow): shadow.name for shadow in self.shadows})
        mark.alone()
        return []

    def replaced(self) -> list[str]:
        return []

    def take_back(self, switched: bool, mark: Mark, force: bool = False) -> list[str]:
        lines = []
        for shadow in self.shadows:
            if aliases.get(_alias(shadow)) == shadow.name:
                del aliases[_alias(shadow)]
            if not switched:
                shadow.kept.described.pop(shadow.name, None)
                shadow.kept.rows.pop(shadow.name, None)
            lines.append(f"{shadow.target.name} is not switched")
        mark.alone()
        return lines

    def settle(self) -> None:
        """The mark is set after all else."""

    def contract(self, mark: Mark) -> list[str]:
        mark.alone()
        return []


def _alias(shadow: CollectionShadow) -> tuple[str, str]:
    return shadow.target.place.where, shadow.target.place.alias


class MemoryForm(Migration):
    """The form of the flow."""

    database: str = LEDGER
    where: str = Field("", description="name of the store")
    embedder: str = Field("hashing/64", description="model of the new vectors")
    queries: str | None = Field(None, description="file of queries")

    flow: ClassVar[str] = FLOW
    stand_for: ClassVar[dict[str, str]] = {"where": "source"}
    known_by: ClassVar[tuple[str, ...]] = ("source", "embedder")

    def source(self) -> dict[str, Any]:
        return {"store": "memory", "name": self.where}

    def missing(self) -> str | None:
        return None if self.where else "where is missing: name a store"


class Planner:
    """Satisfies tasks.planning.planned.Planner."""

    def draft(self, database: Database, request: Request, run_id: str) -> Draft:
        where, space = request.source["name"], open_embedder(request.embedder or "").space
        store = memory.named(where)
        targets = tuple(
            Target(number, collection, self._place(where, collection, run_id, space.dimensions), space.dimensions,
                   space.fingerprint, limit=request.limit)
            for number, collection in enumerate(store.records(name).describe() for name in store.names())
            if "__" not in collection.name
        )  # fmt: skip
        return Draft(Plan(check_run_id(run_id), request, targets))

    def examine(self, database: Database, draft: Draft) -> Draft:
        return draft

    def estimate(self, database: Database, draft: Draft) -> Planned:
        looks = [Look(t.collection.count, {}, 0, 0, 100.0, 0.0) for t in draft.plan.targets]
        rows = [(t.collection.name, t.name, f"{t.rows:,}") for t in draft.plan.targets]
        return Planned(draft.plan, Listing(("collection", "alias", "rows"), [*rows]), looks, [])

    def prepare(self, database: Database) -> None:
        """A store in memory stands on nothing."""

    def _place(self, where: str, collection: Collection, run_id: str, dimensions: int) -> AliasedCollection:
        name = f"{collection.name}__{suffix(run_id, collection.name)}"
        return AliasedCollection(where=where, alias=f"{collection.name}_live", collection=name, dimensions=dimensions)


@flow(name=FLOW, flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(MemoryForm)
def migrate_memory(parameters: MemoryForm) -> State[Result]:
    """Move collections of the in-memory store onto another text model."""
    return migrate(parameters)


@pytest.fixture
def memory_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that register it."""
    here = "tests.helpers.memory_target"
    monkeypatch.setitem(place.KINDS, AliasedCollection.kind, f"{here}:AliasedCollection")
    monkeypatch.setitem(shadows.SHADOWS, AliasedCollection.kind, f"{here}:CollectionShadow")
    monkeypatch.setitem(shadows.UNITS, AliasedCollection.store, f"{here}:AliasUnit")
    monkeypatch.setitem(planning.PLANNERS, FLOW, Planner())
    monkeypatch.setitem(forms.FLOWS, FLOW, MemoryForm)
    monkeypatch.setitem(sys.modules, f"flows.{FLOW}", SimpleNamespace(memory=migrate_memory))  # type: ignore[arg-type]
