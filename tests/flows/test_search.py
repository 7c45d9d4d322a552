"""``vecferry search``: what a text finds by the vectors that a run has made, and what is said where it cannot be asked."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.command.search import search
from flows.command.show.searched import show_searched
from flows.text_384_to_1536 import text_384_to_1536
from tasks.base.errors import UsageError
from tasks.checks.measures import row_cosine
from tasks.contents.image.content import Image
from tasks.embedders.registry import open_embedder
from tasks.runs.run import open_run
from tasks.stores.interface import Collection, records, vector_column
from tasks.stores.memory import MemoryStore
from tasks.stores.postgres.connection import Connection
from tests.helpers.command import command
from tests.helpers.live_table import Table
from tests.helpers.local_models import needs_models, needs_timm
from tests.helpers.memory_target import memory_target, migrate_memory
from tests.helpers.photographs import files
from tests.helpers.tiny_models import clip_model, timm_model
from tests.shadows.test_memory_target import a_store

__all__ = ["memory_target"]
Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("prefect", "memory_target", "ledger_database")


@pytest.fixture
def store() -> Iterator[tuple[str, MemoryStore]]:
    with a_store() as kept:
        yield kept


def test_what_is_made_is_found_before_the_cutover_and_after(store: tuple[str, MemoryStore], capsys: Capture) -> None:
    """The document and its score, the nearest first; in JSON with the id. After a rollback too; nothing once it is dropped."""
    name, kept = store
    migrate_memory(where=name, run_id="r", embedder="hashing/128")
    text = "what row 7 says"
    shown = command(capsys, "search", text, "--run", "r", "--limit", "3")
    assert shown.exit == 0, shown.err
    first, *lines = shown.out.splitlines()
    assert first == f"Found 3 texts in {name}:docs_live"
    model = open_embedder("hashing/128")
    documents = [row["document"] for row in kept.rows["docs"].values()]
    scores = model.embed(documents).whole @ model.embed([text]).whole[0]
    best = sorted(zip(scores, documents, strict=True), reverse=True)[:3]
    assert sorted(lines) == sorted(f"  - {document} (score: {score:.3f})" for score, document in best)
    assert command(capsys, "cutover", "r").exit == 0
    answer = command(capsys, "search", text, "--run", "r", "--json").json
    assert (answer["run_id"], answer["query"], answer["model"]) == ("r", text, "hashing/128")
    [target] = answer["targets"]
    assert (target["name"], target["kind"], len(target["hits"])) == (f"{name}:docs_live", "text", 5)
    assert target["hits"][0]["id"] == "row 7"
    assert np.isclose(target["hits"][0]["score"], 1 - target["hits"][0]["distance"])
    command(capsys, "rollback", "r")
    assert command(capsys, "search", text, "--run", "r").out.startswith("Found 5 texts")
    command(capsys, "contract", "r", "--yes", "-p", "rollback_days=0")
    refused = command(capsys, "search", text, "--run", "r")
    assert (refused.exit, "start a new run" in refused.complaint) == (2, True)


def test_live_tables_are_searched(connection: Connection, capsys: Capture) -> None:
    """Each of them, of a run whose ledger is in the other database; a long text is cut, and shown on one line."""
    Table(connection, rows=30)
    connection.execute("UPDATE docs SET content = %s WHERE id = 3", ("sailing\n" + "far and away " * 20,))
    text_384_to_1536(targets=[{"table": "docs", "text": "content"}], embedder="hashing/1536", run_id="live")
    shown = command(capsys, "search", "sailing far and away", "--run", "live", "--limit", "2").out.splitlines()
    assert shown[0] == "Found 2 texts in public.docs.embedding_1536"
    assert shown[1].startswith("  - sailing far and away far and away")
    assert "… (score: 0." in shown[1]


@needs_models
@pytest.mark.whole
def test_images_are_found_by_a_text(tmp_path: Path, store: tuple[str, MemoryStore], capsys: Capture) -> None:
    """By a model of both, as CLIP is; a picture is called by its reference, with or without a crop."""
    name, kept = store
    embedder = f"sentence-transformers/{clip_model(tmp_path / 'clip')}"
    model, photos = open_embedder(embedder), files(3)
    documents = ["cat.png", "photos/dog.png", '{"crop": [0, 0, 1, 1], "image": "owl.png"}']
    migrate_memory(where=name, run_id="r")
    run = open_run("r", "VECFERRY_DATABASE_URL")
    target = replace(
        run.plan.targets[0], content=Image(root=str(tmp_path), asked="text"), space=model.space.fingerprint
    )
    made, nothing = target.place.collection, pa.nulls(3, pa.string())
    del kept.described[made]
    kept.create(Collection(made, "", 0, model.space.dimensions, "cosine"))
    kept.write(made, pa.RecordBatch.from_arrays(
        [pa.array(["1", "2", "3"]), pa.array(documents), nothing, nothing, vector_column(model.embed(photos).whole)],
        schema=records(model.space.dimensions),
    ))  # fmt: skip
    request = replace(run.plan.request, embedder=embedder)
    of_images = replace(run, plan=replace(run.plan, request=request, targets=(target,)))
    show_searched(search(of_images, "a cat", 3), as_json=False)
    pictures, text = model.embed(photos).whole, model.embed(["a cat"]).whole
    scores = row_cosine(pictures, np.repeat(text, 3, axis=0))
    ranked = sorted(zip(scores, ["cat.png", "photos/dog.png", "owl.png"], strict=True), reverse=True)
    assert capsys.readouterr().out.splitlines() == [
        f"Found 3 images in {name}:docs_live",
        *(f"  - {image} (score: {score:.3f})" for score, image in ranked),
    ]
    with pytest.raises(UsageError, match=r"has no vector of 'a{30}': 32 tokens, where the model takes 20 \(too_long\)"):
        search(of_images, "a" * 30, 3)


@needs_timm
def test_what_cannot_be_asked_is_told(
    connection: Connection,
    store: tuple[str, MemoryStore],
    chroma_dir: Callable[..., str],
    capsys: Capture,
    tmp_path: Path,
) -> None:
    """A model without texts, vectors whose model nobody knows, a run that is not there, no run: one line each."""
    migrate_memory(where=store[0], run_id="r")
    run = open_run("r", "VECFERRY_DATABASE_URL")
    model = f"timm/{timm_model(tmp_path / 'm')}?preprocess=card"
    pictures = replace(run, plan=replace(run.plan, request=replace(run.plan.request, embedder=model)))
    with pytest.raises(Exception, match=r"cannot embed texts: its vectors are found by images only$"):
        search(pictures, "a cat", 5)
    chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="carried")
    refused = command(capsys, "search", "a cat", "--run", "carried")
    assert (refused.exit, refused.complaint) == (
        2,
        "run carried carries its source's vectors, and their model is not known: no text can be embedded for them",
    )
    assert command(capsys, "search", "a cat").complaint.startswith(
        "name a run with --run; `vecferry status` lists them"
    )
    assert command(capsys, "search", "a cat", "--run", "nobody").complaint.startswith("there is no run 'nobody' in ")
