"""What holds of the three places in Qdrant, stage by stage."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from qdrant_client import QdrantClient, models

from flows.forms.form import parse
from tasks.base import settings
from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.begin import begin
from tasks.cutover import contract, cutover, rollback
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run, open_run
from tasks.runs.vectors import embedded
from tasks.shadows.interface import Shadow
from tasks.shadows.qdrant import shadow as qdrant_shadow
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant.client import close_directory, created
from tasks.stores.records import with_hash
from tests.helpers.qdrant import Qdrant, client
from tests.helpers.qdrant_run import begun, followed, killed_before_the_ledger, ready, switched, taken_for_verified
from tests.helpers.qdrant_target import (
    ADDED,
    BESIDE,
    CARRIED,
    COLLECTION,
    COPY,
    KEY,
    KINDS,
    Docs,
    Kind,
    QdrantForm,
    made,
    qdrant_target,
)

__all__ = ["client", "qdrant_target"]
pytestmark = pytest.mark.usefixtures("qdrant_target", "connection")
OLD_NAME = "old"


@pytest.fixture
def docs(client: QdrantClient) -> Docs:
    """30 points with texts, one without, of a named vector."""
    created = Docs(client, OLD_NAME)
    created.create({n: f"what {n} says" for n in range(1, 31)} | {99: None})
    return created


@pytest.mark.parametrize("kind", KINDS)
def test_from_snapshot_to_switch(kind: Kind, qdrant: Qdrant, docs: Docs) -> None:
    """Every text has the new model's vector, and every point its payload; the one that says nothing is set aside and kept."""
    run = begun(qdrant.url, kind, OLD_NAME)
    there, vector = (COLLECTION, ADDED) if kind == "named_vector" else (BESIDE, OLD_NAME)
    assert docs.rows(there, vector) == docs.expected()
    assert docs.client.count(there).count == 31
    notes = shadow_of(run, run.plan.targets[0]).notes()
    assert notes[0] == (
        f"31 points in {there}, which is green: 30 points with the new vector, 1 point without a text, 0 points quarantined for another "
        "reason"
    )
    assert not shadow_of(run, run.plan.targets[0]).active()
    assert switched(run)
    assert shadow_of(run, run.plan.targets[0]).active()


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_is_followed(kind: Kind, qdrant: Qdrant, docs: Docs) -> None:
    """A new point, another text, another payload, a deleted point and one that was upserted whole come along."""
    run = begun(qdrant.url, kind, OLD_NAME)
    docs.say({101: "a new one", 2: "another text", 3: None, 4: docs_text(4)})
    docs.client.set_payload(COLLECTION, {"seen": True}, [5], wait=True)
    docs.client.delete(COLLECTION, [6], wait=True)
    total = followed(run).total
    assert (total.missing.count, total.orphaned.count) == ((3, 0) if kind == "named_vector" else (1, 1))
    assert new_rows(docs, kind) == docs.expected()
    assert not followed(run).total.touched


@pytest.mark.parametrize("kind", KINDS)
def test_a_stale_vector_is_made_anew(kind: Kind, qdrant: Qdrant, docs: Docs) -> None:
    """``set_payload`` leaves the vector of the text that was: it is told by what was embedded."""
    run = begun(qdrant.url, kind, OLD_NAME)
    docs.client.set_payload(COLLECTION, {KEY: "says something else"}, [7], wait=True)
    shadow = shadow_of(run, run.plan.targets[0])
    assert shadow.compare().stale.ids == ("7",)
    assert followed(run).total.stale.ids == ("7",)
    assert new_rows(docs, kind)["7"][1] == made("says something else")
    assert not shadow.compare().touched


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_between_the_store_and_the_ledger(
    kind: Kind, qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is switched and the ledger does not know: the next cutover asks the store, and switches nothing twice."""
    run = begun(qdrant.url, kind, OLD_NAME)
    ready(run)
    with killed_before_the_ledger(monkeypatch):
        cutover(run)
    expected = docs.expected(COLLECTION if kind != "replaced_collection" else COPY)
    assert active(run)
    assert switched(run) == []
    assert new_rows(docs, kind) == expected
    rollback(run)
    assert not active(run)


def docs_text(n: int) -> str:
    return f"what {n} says"


def new_rows(docs: Docs, kind: Kind) -> dict[str, Any]:
    return docs.rows(COLLECTION, ADDED) if kind == "named_vector" else docs.rows(BESIDE, OLD_NAME)


def active(run: Run) -> bool:
    shadow: Any = shadow_of(run, run.plan.targets[0])
    return bool(shadow.active())


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


def test_rows_of_a_lookup_without_a_point_are_told(qdrant: Qdrant, docs: Docs, connection: Connection) -> None:
    """The document is the lookup's, a change of it is followed, and what no point names is named."""
    connection.execute("CREATE TABLE captions (topic integer, caption text)")
    connection.execute("INSERT INTO captions SELECT n, 'caption ' || n FROM generate_series(0, 31) n WHERE n <> 2")
    lookup = {"key": "topic", "table": "captions", "match": "topic", "column": "caption", "database": "DATABASE_URL"}
    run = begun(qdrant.url, "named_vector", OLD_NAME, lookup=lookup)
    assert {i: vector for i, (_, vector) in new_rows(docs, "named_vector").items()} == {
        str(n if n < 31 else 99): made(f"caption {n - 1}") for n in range(1, 32) if n != 3
    }
    assert shadow_of(run, run.plan.targets[0]).notes()[1:] == ["1 row of captions has no point: '31'"]
    connection.execute("UPDATE captions SET caption = 'another' WHERE topic = 4")
    connection.execute("INSERT INTO captions VALUES (2, 'a late one')")
    total = followed(run).total
    assert (total.missing.ids, total.stale.ids) == (("3",), ("5",))
    rows = new_rows(docs, "named_vector")
    assert (rows["3"][1], rows["5"][1]) == (made("a late one"), made("another"))


def test_every_document_is_looked_at_anew_when_that_is_asked_for(qdrant: Qdrant, docs: Docs) -> None:
    """A vector that was spoilt behind the run's back comes right again, and the others are not written."""
    run = begun(qdrant.url, "named_vector", OLD_NAME)
    docs.client.update_vectors(COLLECTION, [models.PointVectors(id=9, vector={ADDED: [1.0] * 64})], wait=True)
    assert not followed(run).total.touched
    shadow_of(run, run.plan.targets[0]).reread()
    assert followed(run).total.stale.ids == ("9",)
    assert new_rows(docs, "named_vector") == docs.expected()


@pytest.mark.parametrize("vector", ["", OLD_NAME])
def test_contract_drops_the_old_vector_where_it_has_a_name(vector: str, qdrant: Qdrant, client: QdrantClient) -> None:
    """Qdrant drops no vector without one, and the contract says so."""
    docs = Docs(client, vector)
    docs.create({n: docs_text(n) for n in range(1, 6)})
    run = taken_for_verified(begun(qdrant.url, "named_vector", vector))
    cutover(run)
    lines = contract(run, 0)
    assert lines == (
        ["dropped vector old of docs"]
        if vector
        else ["the unnamed vector of docs stays: Qdrant drops no vector without a name"]
    )
    assert set(client.get_collection(COLLECTION).config.params.vectors) == ({ADDED, CARRIED} if vector else {"", ADDED})
    docs.client.set_payload(COLLECTION, {KEY: "changed after the contract"}, [1], wait=True)
    assert followed(run).total.stale.ids == ("1",)


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_directory_of_local_mode(kind: Kind, tmp_path: Path) -> None:
    """The same without a server."""
    path = str(tmp_path / "local")
    docs = Docs(created(path).client, OLD_NAME)
    docs.create({n: docs_text(n) for n in range(1, 31)} | {99: None})
    run = begun("", kind, OLD_NAME, path=path)
    docs.say({101: "a new one", 3: None})
    docs.client.set_payload(COLLECTION, {KEY: "says something else"}, [7], wait=True)
    docs.client.delete(COLLECTION, [6], wait=True)
    expected = docs.expected()
    assert switched(run)
    assert new_rows(docs, kind) == expected
    assert rollback(run)
    assert not active(run)
    assert switched(run)
    assert contract(run, 0)
    assert new_rows(docs, kind) == expected
    close_directory(path)


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
