"""A Qdrant collection onto another model, through the whole life of a run, in all three places."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.catch_up import catch_up
from flows.forms.form import parse
from flows.forms.siglip_to_clip import SiglipToClip
from flows.siglip_to_clip import siglip_to_clip
from tasks.embedders.registry import open_embedder
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant import client as clients
from tests.helpers.captioned import NAME, NEW, Points, Rows
from tests.helpers.lifecycle import Migration, drive, tables
from tests.helpers.local_models import needs_models
from tests.helpers.memory import memory_folder
from tests.helpers.qdrant import Qdrant
from tests.helpers.sampling import sampled
from tests.helpers.tiny_models import clip_model

pytestmark = pytest.mark.usefixtures("prefect")

WIDTH = {"text": NEW.dimensions, "image": 24}
"""Of the new vectors, by the content."""


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """CLIP with random weights, loaded by the real code."""
    return f"sentence-transformers/{clip_model(tmp_path_factory.mktemp('models'))}"


@dataclass(frozen=True)
class Subject:
    """A collection and what its migration is asked for."""

    points: Points
    strategy: str
    asked: dict[str, Any]
    model: Callable[[list[str]], np.ndarray]

    @property
    def beside(self) -> str:
        """The new collection."""
        return f"{NAME}_{WIDTH[self.asked['content']]}"

    def pointed_to(self) -> str | None:
        """The collection that the application reads once it is switched; None before."""
        client = self.points.client
        if self.strategy == "named_vector":
            mark = (client.get_collection(NAME).config.metadata or {}).get("vecferry:clip") or {}
            return NAME if mark.get("active") else None
        alias = NAME if self.strategy == "replace" else f"{self.beside}_current"
        current = {a.alias_name: a.collection_name for a in client.get_aliases().aliases}.get(alias)
        return current if current == self.beside else None

    def served(self) -> Rows | None:
        if (name := self.pointed_to()) is None:
            return None
        return self.points.rows(name, "clip" if self.strategy == "named_vector" else self.points.old)

    def migration(self, connection: Connection) -> Migration:
        """What the harness drives. Of a collection that was replaced the old points are in a copy, which nobody writes to; what they
        said last is what the new one says."""
        steps, last, points = iter(range(1, 50)), list[Rows](), self.points

        def expected() -> Rows:
            copy = f"{NAME}_before_{WIDTH[self.asked['content']]}"
            old = copy if self.strategy == "replace" and self.pointed_to() else NAME
            if points.client.collection_exists(old):
                last[:] = [points.expected(self.model, old)]
            return last[0]

        def writes() -> list[str]:
            aliases = [f"{a.alias_name} → {a.collection_name}" for a in points.client.get_aliases().aliases]
            return sorted(
                [*aliases, *(c.name for c in points.client.get_collections().collections), *tables(connection)]
            )

        form = parse(SiglipToClip, self.asked)
        return Migration(
            run=lambda run_id: siglip_to_clip(
                **self.asked, run_id=run_id, batch_rows=25, gates={"max_quarantined": 20}
            ),
            plan=lambda: make_plan(connection, form.request(), "life"),
            expected=expected,
            served=self.served,
            change=lambda: points.change(next(steps)),
            writes=writes,
            gates={"max_quarantined": 20},
            catch_up=(lambda run_id: catch_up(run_id=run_id)) if self.strategy != "replace" else None,
            lives_on=self.strategy == "named_vector",
        )


@pytest.fixture
def subject(qdrant: Qdrant, tmp_path: Path, database: str, request: pytest.FixtureRequest) -> Callable[..., Subject]:
    """Makes a collection: of images by CLIP, or of texts; on the server, or in a directory of local mode."""

    def make(strategy: str, old: str = "", uuids: bool = False, content: str = "text", local: str = "") -> Subject:
        client = clients.created(local).client if local else qdrant.client()
        asked: dict[str, Any] = {
            "qdrant": {"path": local} if local else {"url": qdrant.url},
            "strategy": strategy, "content": content, "database": "DATABASE_URL",
            **({"vector_name": "clip"} if strategy == "named_vector" else {}),
        }  # fmt: skip
        if content == "text":
            asked |= {"text": "caption", "embedder": f"hashing/{NEW.dimensions}"}
            points = Points(client, old, uuids).make()
            return Subject(points, strategy, asked, lambda texts: NEW.embed(texts).whole)
        folder = tmp_path / "pictures"
        folder.mkdir()
        asked |= {"images": {"root": str(folder)}, "embedder": request.getfixturevalue("clip")}
        model = open_embedder(asked["embedder"])
        points = Points(client, old, uuids, key="image_path", folder=folder).make()
        return Subject(
            points, strategy, asked, lambda names: model.embed([(folder / name).read_bytes() for name in names]).whole
        )

    return make


@pytest.mark.parametrize(
    ("strategy", "old", "uuids"),
    sampled(
        [(s, old, uuids) for s in ("named_vector", "alias", "replace") for old in ("", "siglip") for uuids in (False, True)],
        ("replace", "", False),
    ),
)  # fmt: skip
def test_lifecycle(
    subject: Callable[..., Subject], connection: Connection, strategy: str, old: str, uuids: bool
) -> None:
    """Plan, run, roll back, run, cut over, catch up, roll back, cut over and contract, while the application upserts whole points,
    changes payloads and references, and deletes: every payload, and every vector of what its payload says."""
    drive(subject(strategy, old, uuids).migration(connection))


@needs_models
@pytest.mark.whole
@pytest.mark.parametrize("strategy", ["named_vector", "alias", "replace"])
def test_lifecycle_of_images(subject: Callable[..., Subject], connection: Connection, strategy: str) -> None:
    """The same for pictures by CLIP."""
    drive(subject(strategy, "siglip", content="image").migration(connection))


@pytest.mark.parametrize(
    ("strategy", "old"),
    sampled(
        [("alias", ""), ("replace", ""), ("named_vector", "siglip"), ("alias", "siglip"), ("replace", "siglip")]
    ),  # of an alias, test_qdrant_demo goes through it all
)
def test_lifecycle_in_local_mode(
    subject: Callable[..., Subject], connection: Connection, tmp_path: Path, strategy: str, old: str
) -> None:
    """The same in a directory of qdrant-client's, save the one combination that is refused there."""
    with memory_folder(tmp_path) as folder:
        path = str(folder / "local")
        drive(subject(strategy, old, local=path).migration(connection))
        clients.close_directory(path)
