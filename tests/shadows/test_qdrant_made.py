"""What is made in Qdrant for the three places: configuration, when it is indexed, names that are taken, writes that nobody acknowledged."""

from typing import Any

import pyarrow as pa
import pytest
from qdrant_client import QdrantClient, models

from flows.forms.form import parse
from tasks.base import settings
from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.begin import begin
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run, open_run
from tasks.runs.vectors import embedded
from tasks.shadows.interface import Shadow
from tasks.shadows.qdrant import shadow as qdrant_shadow
from tasks.shadows.registry import shadow_of
from tasks.stores.records import with_hash
from tests.helpers.qdrant import Qdrant, client
from tests.helpers.qdrant_run import begun, followed
from tests.helpers.qdrant_target import (
    ADDED,
    BESIDE,
    COLLECTION,
    COPY,
    KEY,
    OLD_NAME,
    Docs,
    Kind,
    QdrantForm,
    docs,
    qdrant_target,
)

__all__ = ["client", "docs", "qdrant_target"]
pytestmark = pytest.mark.usefixtures("qdrant_target", "connection")


def test_a_new_collection_has_all_of_the_old_ones_configuration(qdrant: Qdrant, client: QdrantClient) -> None:
    """Indexes, quantization, hnsw, payload indexes, other vectors; all but the size. Its metadata say whose it is, and what a
    user keeps there stays. Nothing is indexed while it is filled, and as before after that."""
    client.create_collection(
        COLLECTION,
        {OLD_NAME: size(32, on_disk=True), "other": size(8)},
        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        hnsw_config=models.HnswConfigDiff(m=24, ef_construct=77),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1234),
        metadata={"owner": "us"},
    )
    client.create_payload_index(COLLECTION, "topic", models.PayloadSchemaType.INTEGER)
    sparse = models.SparseVector(indices=[3, 1], values=[0.5, 0.25])
    vectors = {OLD_NAME: [1.0] * 32, "other": [0.5] * 8, "words": sparse}
    client.upsert(COLLECTION, [models.PointStruct(id=1, vector=vectors, payload={KEY: "says"})], wait=True)
    run = begun(qdrant.url, "new_collection", OLD_NAME)
    old, new = (client.get_collection(name) for name in (COLLECTION, BESIDE))
    assert new.config.metadata == {"owner": "us", "vecferry": {"run_id": "r", "space": run.plan.targets[0].space}}
    assert new.config.params.vectors[OLD_NAME] == size(64, on_disk=True)
    assert new.config.optimizer_config.indexing_threshold == 1234
    for part in ("hnsw_config", "quantization_config", "wal_config"):
        assert getattr(new.config, part) == getattr(old.config, part)
    assert set(new.payload_schema) == {"topic"}
    beside = client.retrieve(BESIDE, [1], with_vectors=True)[0].vector
    was = client.retrieve(COLLECTION, [1], with_vectors=True)[0].vector
    assert isinstance(beside, dict)
    assert {**was, OLD_NAME: None} == {**beside, OLD_NAME: None}
    shadow = shadow_of(run, run.plan.targets[0])
    assert [line.partition(":")[0] for line in shadow.notes()] == ["1 point in docs_64, which is green"]
    client.update_collection(BESIDE, hnsw_config=models.HnswConfigDiff(m=8))
    assert shadow.notes()[1:] == [f"the configuration of {BESIDE} differs: hnsw_config.m: 8, not 24"]
    client.set_payload(COLLECTION, {"topic": 3}, [1], wait=True)
    client.update_vectors(COLLECTION, [models.PointVectors(id=1, vector={"other": [0.25] * 8})], wait=True)
    assert followed(run).total.stale.ids == ("1",)
    assert (
        client.retrieve(BESIDE, [1], with_vectors=["other"])[0].vector
        == client.retrieve(COLLECTION, [1], with_vectors=["other"])[0].vector
    )


def test_a_collection_that_is_still_indexed_is_told(
    qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verification waits for its index, but not for ever, and not for an optimizer that waits to be asked: it changes nothing."""
    shadow = shadow_of(run := begun(qdrant.url, "new_collection", OLD_NAME), run.plan.targets[0])
    monkeypatch.setattr(qdrant_shadow, "PATIENCE", 0.2)
    qdrant.server.hold("yellow")
    assert shadow.notes()[0].startswith(f"31 points in {BESIDE}, which is yellow: 30 points with the new vector")
    monkeypatch.setattr(qdrant_shadow, "PATIENCE", 60.0)
    qdrant.server.hold("grey")
    qdrant.server.forget()
    assert shadow.notes()[0].startswith(f"31 points in {BESIDE}, which is grey: ")
    assert "update_collection" not in {call.operation for call in qdrant.server.calls()}
    qdrant.server.hold(None)
    assert shadow.notes()[0].startswith(f"31 points in {BESIDE}, which is green: ")


@pytest.mark.parametrize(("kind", "there"), [("new_collection", BESIDE), ("named_vector", COLLECTION)])
def test_indexing_waits_until_all_is_there(kind: Kind, there: str, qdrant: Qdrant, docs: Docs) -> None:
    """A collection of ours is not indexed while it is filled; a vector beside others alone is not, so that readers of those notice
    nothing."""
    seen = list[models.CollectionInfo]()
    run = planned(qdrant.url, kind)
    shadow = shadow_of(run, run.plan.targets[0])
    before = docs.client.get_collection(COLLECTION)
    shadow.expand()
    seen.append(docs.client.get_collection(there))
    shadow.index()
    after = docs.client.get_collection(there)
    if kind == "new_collection":
        assert seen[0].config.optimizer_config.indexing_threshold == 0
        assert after.config.optimizer_config.indexing_threshold == before.config.optimizer_config.indexing_threshold
    else:
        assert seen[0].config.params.vectors[ADDED].hnsw_config.m == 0
        assert seen[0].config.optimizer_config == before.config.optimizer_config
        assert after.config.params.vectors[ADDED].hnsw_config.m == before.config.hnsw_config.m
    shadow.expand()
    assert docs.client.get_collection(there).config == after.config, "a second call changes something"


def test_what_is_there_already_and_not_the_runs_is_left_alone(qdrant: Qdrant, docs: Docs) -> None:
    """Another's collection, another's vector, and those of another run."""
    docs.client.create_collection(BESIDE, size(4))
    with pytest.raises(UsageError, match=rf"collection {BESIDE} exists and is not vecferry's"):
        shadow_at(qdrant.url, "new_collection").expand()
    docs.client.delete_collection(BESIDE)
    shadow_at(qdrant.url, "new_collection", "first").expand()
    with pytest.raises(UsageError, match=rf"collection {BESIDE} exists and belongs to run first"):
        shadow_at(qdrant.url, "new_collection", "second").expand()
    dense = models.DenseVectorNameConfig(dense=models.DenseVectorConfig(size=64, distance=models.Distance.COSINE))
    docs.client.create_vector_name(COLLECTION, ADDED, dense)
    with pytest.raises(UsageError, match=rf"{COLLECTION} has vector {ADDED} already, and not vecferry made it"):
        shadow_at(qdrant.url, "named_vector", "third").expand()
    docs.client.create_collection(COPY, size(4))
    shadow = shadow_at(qdrant.url, "replaced_collection", "fourth", beside="docs_fourth")
    shadow.expand()
    with pytest.raises(UsageError, match=rf"collection {COPY} exists and is not run fourth's copy"):
        shadow.index()


@pytest.mark.parametrize("kind", ["named_vector", "new_collection"])
@pytest.mark.parametrize("fault", ["wait_timeout", "507"])
def test_a_write_that_was_not_acknowledged_is_not_done(kind: Kind, fault: str, qdrant: Qdrant, docs: Docs) -> None:
    """Neither is a batch marked that the server did not complete in time, nor one that it refused; the next start writes it."""
    server, write = qdrant.server, "update_vectors" if kind == "named_vector" else "upsert_points"
    run = planned(qdrant.url, kind)
    shadow: Any = shadow_of(run, run.plan.targets[0])
    shadow.expand()
    rows = page_of(run)
    if fault == "507":
        server.fail(write, 507)
    else:
        server.wait_timeout(write)
    marks = list[str]()
    with pytest.raises(FatalError if fault == "507" else TransientError):
        shadow.load(rows, None, False, a_mark(run, marks))
    assert (marks, shadow.known.of(["1"])) == ([], {})
    assert shadow.load(rows, None, False, a_mark(run, marks))
    assert marks == ["set"]
    assert list(shadow.known.of(["1"])) == ["1"]


def size(dimensions: int, **more: Any) -> models.VectorParams:
    return models.VectorParams(size=dimensions, distance=models.Distance.COSINE, **more)


def planned(url: str, kind: Kind, run_id: str = "r", **changed: Any) -> Run:
    """A run that has begun, and done nothing."""
    form = parse(QdrantForm, {"url": url, "strategy": kind, "vector": OLD_NAME, **changed})
    begin(form.request(), run_id, form.given())
    return open_run(run_id, settings.DEFAULT_DATABASE)


def shadow_at(url: str, kind: Kind, run_id: str = "r", **changed: Any) -> Shadow:
    run = planned(url, kind, run_id, **changed)
    return shadow_of(run, run.plan.targets[0])


def page_of(run: Run) -> pa.Table:
    """All points as a batch of a load has them."""
    target = run.plan.targets[0]
    source = run.records(target)
    rows = with_hash(pa.Table.from_batches([source.fetch(source.ids().to_pylist()[:20])]))
    return embedded(run, target, rows)[0]


def a_mark(run: Run, marks: list[str]) -> Mark:
    return Mark(run.connection, lambda _: marks.append("set"))
