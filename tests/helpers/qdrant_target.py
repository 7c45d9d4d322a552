"""A migration over collections of Qdrant that needs no flow of its own: texts of a payload get vectors of another model, in any of
the three places."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from prefect import State, flow
from pydantic import Field
from qdrant_client import QdrantClient, models

from flows.forms import registry as forms
from flows.forms.form import form
from flows.forms.shared import Migration
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from tasks.embedders.hashing import HashingEmbedder
from tasks.embedders.registry import open_embedder
from tasks.planning import registry as planning
from tasks.planning.planned import Draft, Listing, Look, Planned
from tasks.runs.database import Database
from tasks.runs.names import check_run_id
from tasks.runs.plan import Plan, Request, Target
from tasks.stores.qdrant.client import opened
from tasks.stores.qdrant.places import NamedVector, NewCollection, QdrantPlace, ReplacedCollection
from tasks.stores.qdrant.records import QdrantRecords
from tasks.stores.qdrant.store import QdrantStore
from tests.helpers.lifecycle import Rows

FLOW = "qdrant"
OLD, NEW = HashingEmbedder(32), HashingEmbedder(64)
KEY = "text"
COLLECTION, BESIDE, COPY, ALIAS = "docs", "docs_64", "docs_before_64", "docs_current"
CARRIED, CARRIED_SIZE = "carried", 8
"""A vector beside the old one, where that has a name."""
ADDED = "new"
"""The name of a vector that is added."""
OLD_NAME = "old"
"""Of the vectors that are there, where they have one."""
Kind = Literal["named_vector", "new_collection", "replaced_collection"]
KINDS: tuple[Kind, ...] = ("named_vector", "new_collection", "replaced_collection")


def place_of(own: dict[str, Any], where: dict[str, Any], records: QdrantRecords) -> QdrantPlace:
    """The place that the form asks for."""
    vector, dimensions = own["vector"], NEW.space.dimensions
    common = {**where, "collection": COLLECTION, "vector": vector, "dimensions": dimensions, "distance": "Cosine"}
    common["others"] = tuple(records.reading.others)
    if own["strategy"] == "named_vector":
        return NamedVector(**common, new_vector=ADDED)
    if own["strategy"] == "new_collection":
        was = records.qdrant.aliases().get(ALIAS)
        return NewCollection(**common, new_vector=vector, new_collection=own["beside"], alias=ALIAS, alias_was=was)
    return ReplacedCollection(**common, new_vector=vector, new_collection=own["beside"], copy=COPY)


class QdrantForm(Migration):
    """The form of the flow."""

    url: str | None = Field(None, description="the server")
    path: str | None = Field(None, description="the directory")
    strategy: Kind = Field(description="the place")
    vector: str = Field("", description="the old vectors")
    beside: str = Field(BESIDE, description="the new collection")
    embedder: str = Field("hashing/64", description="model of the new vectors")
    old_embedder: str | None = Field(None, description="model of the old vectors")
    document: str = Field(KEY, description="the payload key")
    queries: str | None = Field(None, description="file of queries")

    lookup: dict[str, str] | None = Field(None, description="what of a table a document is")

    flow: ClassVar[str] = FLOW
    stand_for: ClassVar[dict[str, str]] = {"url": "source", "path": "source", "document": "source", "lookup": "source"}

    def source(self) -> dict[str, Any]:
        where = {"url": self.url} if self.url else {"path": self.path}
        return {"store": "qdrant", **where, "vector": self.vector, "document": self.document, "lookup": self.lookup}


class Planner:
    """Satisfies tasks.planning.planned.Planner."""

    def draft(self, database: Database, request: Request, run_id: str) -> Draft:
        source, own = request.source, request.own
        where = {name: source.get(name) for name in ("url", "path")}
        store, space = QdrantStore(opened(**where), own["vector"]), open_embedder(request.embedder or "").space
        records = store.records(COLLECTION)
        target = Target(
            0,
            records.describe(),
            place_of(own, where, records),
            space.dimensions,
            space.fingerprint,
            limit=request.limit,
        )
        return Draft(Plan(check_run_id(run_id), request, (target,)))

    def examine(self, database: Database, draft: Draft) -> Draft:
        return draft

    def estimate(self, database: Database, draft: Draft) -> Planned:
        looks = [Look(t.collection.count, {}, 0, 0, 100.0, 0.0) for t in draft.plan.targets]
        return Planned(draft.plan, Listing(("collection",), [(t.name,) for t in draft.plan.targets]), looks, [])

    def prepare(self, database: Database) -> None:
        """Qdrant stands on nothing."""


@flow(name=FLOW, flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(QdrantForm)
def migrate_qdrant(parameters: QdrantForm) -> State[Result]:
    """Give a collection of texts vectors of another model."""
    return migrate(parameters)


@pytest.fixture
def qdrant_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that register it."""
    monkeypatch.setitem(planning.PLANNERS, FLOW, Planner())
    monkeypatch.setitem(forms.FLOWS, FLOW, QdrantForm)


@dataclass(frozen=True)
class Docs:
    """The collection, as the application has it."""

    client: QdrantClient
    vector: str = ""
    """The name of the old vectors."""

    def create(self, texts: dict[int | str, str | None]) -> None:
        """Makes it and says these. Beside a vector with a name there is another, which is carried."""
        params = models.VectorParams(size=OLD.space.dimensions, distance=models.Distance.COSINE)
        carried = models.VectorParams(size=CARRIED_SIZE, distance=models.Distance.COSINE)
        self.client.create_collection(COLLECTION, {self.vector: params, CARRIED: carried} if self.vector else params)
        self.client.create_payload_index(COLLECTION, "topic", models.PayloadSchemaType.INTEGER)
        self.say(texts)

    def say(self, texts: dict[int | str, str | None]) -> None:
        """Upserts whole points, with the old model's vectors only; None: a payload without a text."""
        made = OLD.embed([text or "nothing" for text in texts.values()]).whole
        points = [
            models.PointStruct(
                id=name, vector=self.laid(vector), payload={"topic": at, **({KEY: text} if text else {})}
            )
            for at, ((name, text), vector) in enumerate(zip(texts.items(), made, strict=True))
        ]
        self.client.upsert(COLLECTION, points, wait=True)

    def laid(self, vector: np.ndarray) -> Any:
        if not self.vector:
            return vector.tolist()
        every = {self.vector: vector.tolist(), CARRIED: (vector[:CARRIED_SIZE] + 0.01).tolist()}
        there: Any = self.client.get_collection(COLLECTION).config.params.vectors
        return {name: one for name, one in every.items() if name in there}  # the old one is dropped by a contract

    def rows(self, collection: str, vector: str) -> Rows:
        """Id → text, topic and vector of the points that have one."""
        points, _ = self.client.scroll(collection, limit=10_000, with_vectors=True)
        rows: Rows = {}
        for point in points:
            vectors = point.vector if isinstance(point.vector, dict) else {"": point.vector}
            if vectors.get(vector):
                rows[str(point.id)] = (point.payload, np.round(np.asarray(vectors[vector], float), 5).tolist())
        return rows

    def expected(self, collection: str = COLLECTION) -> Rows:
        """What the new vectors are to be: id → payload and vector of the points that say something."""
        points, _ = self.client.scroll(collection, limit=10_000)
        return {str(p.id): (p.payload, made(p.payload[KEY])) for p in points if p.payload and p.payload.get(KEY)}


def new_vector(text: str) -> list[float]:
    """What the new model makes of a text."""
    vector: list[float] = NEW.embed([text]).whole[0].tolist()
    return vector


def old_vector(text: str) -> list[float]:
    """What the old model makes of a text, as a collection of cosines keeps it."""
    vector = OLD.embed([text]).whole[0].astype(float)
    unit: list[float] = (vector / np.linalg.norm(vector)).tolist()
    return unit


def made(text: str) -> Sequence[float]:
    """What the new model makes of a text, as a collection of cosines keeps it."""
    vector = NEW.embed([text]).whole[0].astype(float)
    rounded: list[float] = np.round(vector / np.linalg.norm(vector), 5).tolist()
    return rounded


@pytest.fixture
def docs(client: QdrantClient) -> Docs:
    """30 points with texts, one without, of a named vector."""
    created = Docs(client, OLD_NAME)
    created.create({n: f"what {n} says" for n in range(1, 31)} | {99: None})
    return created
