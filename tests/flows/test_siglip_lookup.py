"""A reference that stands in an SQL table, such as the guide's ``images``, and not in the payload, through a whole run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.catch_up import catch_up
from flows.cutover import cutover
from flows.forms.form import parse
from flows.forms.siglip_to_clip import SiglipToClip
from flows.siglip_to_clip import siglip_to_clip
from flows.verify import verify
from tasks.embedders.registry import open_embedder
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.captioned import NEW, Near, Points, Rows
from tests.helpers.lifecycle import tables
from tests.helpers.local_models import needs_models
from tests.helpers.qdrant import Qdrant
from tests.helpers.tiny_models import clip_model

pytestmark = pytest.mark.usefixtures("prefect")

ROWS, WITHOUT, LOST = 20, 7, 8
"""Points, the one that no row of the table is of, and of images one whose picture is not there."""
GONE = "gone.png"
GATES = {"max_quarantined": 4}
Model = Callable[[list[str]], np.ndarray]


class Images:
    """The guide's table. The payloads of its points have a reference too, of which nothing is to be read."""

    def __init__(self, connection: Connection, points: Points) -> None:
        self.connection, self.points = connection, points
        connection.execute("CREATE TABLE images (id serial PRIMARY KEY, chunk_id uuid, image_path text, caption text)")
        for number in range(ROWS):
            if number != WITHOUT:
                self.add(number)

    def add(self, number: int) -> None:
        values = (self.chunk(number), self.points.document(number, 100), f"picture {number}")
        self.connection.execute("INSERT INTO images (chunk_id, image_path, caption) VALUES (%s, %s, %s)", values)

    def change(self, number: int, seed: int) -> None:
        values = (self.points.document(number, seed), self.chunk(number))
        self.connection.execute("UPDATE images SET image_path = %s WHERE chunk_id = %s", values)

    def remove(self, number: int) -> None:
        self.connection.execute("DELETE FROM images WHERE chunk_id = %s", (self.chunk(number),))

    def lose(self, number: int) -> None:
        self.connection.execute("UPDATE images SET image_path = %s WHERE chunk_id = %s", (GONE, self.chunk(number)))

    def chunk(self, number: int) -> str:
        return str(self.points.payload(number)["chunk_id"])

    def expected(self, model: Model) -> Rows:
        """What must be there of every point: its payload, and the vector of what its row says."""
        rows = self.connection.execute("SELECT chunk_id::text, image_path FROM images").fetchall()
        says = {chunk: path for chunk, path in rows if path != GONE}
        there = {id: json.loads(payload) for id, (payload, _) in self.points.rows(self.points.name).items()}
        return {
            id: (
                json.dumps(payload, sort_keys=True),
                Near(model([says[payload["chunk_id"]]])[0]) if payload["chunk_id"] in says else None,
            )
            for id, payload in there.items()
        }


def asked(content: str, qdrant: Qdrant, tmp_path: Path) -> tuple[dict[str, Any], Points, Model]:
    """The parameters, the collection, and the new model."""
    common = {"qdrant": {"url": qdrant.url}, "content": content, "batch_rows": 8, "gates": GATES}
    lookup = {"key": "chunk_id", "table": "images"}
    if content == "text":
        points = Points(qdrant.client())
        return (
            {**common, "text": lookup, "embedder": f"hashing/{NEW.dimensions}"},
            points,
            lambda texts: NEW.embed(texts).whole,
        )
    folder = tmp_path / "pictures"
    folder.mkdir()
    name = f"sentence-transformers/{clip_model(tmp_path / 'clip')}"
    model = open_embedder(name)
    points = Points(qdrant.client(), key="image_path", folder=folder)
    more = {"image": lookup, "images": {"root": str(folder)}, "embedder": name}
    return {**common, **more}, points, lambda names: model.embed([(folder / n).read_bytes() for n in names]).whole


@pytest.mark.parametrize("content", ["text", pytest.param("image", marks=[pytest.mark.whole, needs_models])])
def test_a_reference_in_a_table_is_followed(
    content: str, qdrant: Qdrant, connection: Connection, ledger_database: str, tmp_path: Path
) -> None:
    """What the table's rows say is embedded, and payloads stay; rows that are changed, deleted and added are brought by a pass before
    the switch and after it, verification tells of a row that no point is of, and the user's database has no table more."""
    parameters, points, model = asked(content, qdrant, tmp_path)
    images = Images(connection, points.make(ROWS))
    if content == "image":
        images.lose(LOST)
    before, beside = tables(connection), f"{points.name}_{24 if content == 'image' else NEW.dimensions}"
    with connect(ledger_database, "vecferry test") as ledger:
        planned = make_plan(ledger, parse(SiglipToClip, parameters).request(), "r")
    assert planned.problems == []

    assert siglip_to_clip(**parameters, run_id="r")["state"] == "verified"
    assert points.rows(beside) == images.expected(model)

    images.change(3, 200)
    images.remove(4)
    images.add(WITHOUT)
    images.add(500)
    assert points.rows(beside) != images.expected(model)
    catch_up(run_id="r")
    assert points.rows(beside) == images.expected(model)

    outcome = verify(run_id="r", gates=GATES)
    (told,) = json.loads(Path(outcome["report"]).with_suffix(".json").read_text())["targets"]
    lost = int(content == "image")
    assert told["notes"][0].startswith(
        f"{ROWS} points in {beside}, which is green: {ROWS - 1 - lost} points with the new vector, 1 point without "
        f"{'an image' if lost else 'a text'}, {lost} point{'' if lost else 's'} quarantined"
    )
    assert f"1 row of images has no point: {images.chunk(500)!r}" in told["notes"]
    images.change(5, 200)
    assert cutover(run_id="r", gates=GATES)["state"] == "cut_over"
    assert points.rows(f"{beside}_current") == images.expected(model)
    images.change(6, 200)
    catch_up(run_id="r")
    assert points.rows(f"{beside}_current") == images.expected(model)
    assert tables(connection) == before
