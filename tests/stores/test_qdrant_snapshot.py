"""A snapshot of a Qdrant collection, by the stages that make and restore it."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows.forms.shared import Restore
from flows.restore import written_as
from tasks import restore, snapshot
from tasks.base.errors import TransientError, UsageError
from tasks.runs import dataset, ledger, ledger_versions
from tasks.runs.plan import Plan, Request, Target
from tasks.runs.run import Run, open_run
from tasks.stores import canonical
from tasks.stores.interface import records
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant import client, configuration, indexing, records as qdrant_records, writing
from tasks.stores.qdrant.places import NewCollection
from tasks.stores.qdrant.store import source
from tests.helpers.qdrant import Qdrant

PARAMS: dict[str, Any] = {
    "vectors": {
        "image": {"size": 4, "distance": "Dot"},
        "parts": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
    },
    "sparse_vectors": {"words": {}},
}  # fmt: skip
IDS = [*map(str, range(30)), *(str(uuid.UUID(int=n)) for n in range(2**64, 2**64 + 30))]


@pytest.fixture(params=["a server", "a directory"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A collection of 60 points with all kinds of vectors, as a plan names its store."""
    if request.param == "a directory":
        client.created(str(tmp_path / "qdrant"))
        options: dict[str, Any] = {"path": str(tmp_path / "qdrant")}
    else:
        server: Qdrant = request.getfixturevalue("qdrant")
        options = {"url": server.url, "api_key": "VECFERRY_TEST_QDRANT_API_KEY" if server.api_key else None}
    options |= {"vector": "image", "document": "path"}
    store = source(dict(options), None, True, None)
    schema = {"path": {"data_type": "keyword", "params": {"type": "keyword"}}}
    configuration.create(store.qdrant, "docs", {"params": PARAMS, "hnsw_config": {"m": 8}, "payload_schema": schema})
    store.write("docs", points(IDS))
    yield {"store": "qdrant", **options}
    if "path" in options:
        client.close_directory(options["path"])


def points(ids: list[str]) -> pa.RecordBatch:
    """Every third without a vector of its own, every second with others beside it."""
    vectors = np.random.default_rng(1).standard_normal((len(ids), 4)).astype(np.float32)
    others = b'{"parts":[[1.0,2.0],[3.0,0.1]],"words":{"indices":[3,70000],"values":[0.5,0.1]}}'
    rows = [
        {
            "id": i,
            "metadata": canonical.dumps({"path": f"{n}.jpg", "tags": ["a", n]}),
            "embedding": vectors[n] if n % 3 else None,
            "others": others if n % 2 else None,
        }
        for n, i in enumerate(ids)
    ]
    return pa.RecordBatch.from_pylist(rows, records(4, others=True))


def begun(connection: Connection, options: dict[str, Any]) -> Run:
    """A run over the collection, its plan in the ledger."""
    described = source({k: v for k, v in options.items() if k != "store"}, None, True, None).records("docs").describe()
    place = NewCollection(
        path=options.get("path"),
        url=options.get("url"),
        collection="docs",
        vector="image",
        new_vector="image",
        others=("parts", "words"),
        dimensions=8,
        distance="Cosine",
        new_collection="docs_8",
        alias="docs_current",
    )
    request = Request(
        flow="memory",
        source=options,
        database="DATABASE_URL",
        embedder="hashing/8",
        batch_rows=25,
        limit=None,
        rollback_days=7,
    )
    ledger_versions.ensure(connection)
    ledger.start(connection, Plan("r", request, (Target(0, described, place, 8, "hashing/8"),)), set())
    return open_run("r", "DATABASE_URL")


def backed_up(run: Run) -> int:
    return sum(
        1 for _ in [snapshot.snapshot(run, list(range(snapshot.list_ids(run, 0, alone=True))))]
    ) and snapshot.finish(run)


def rows_of(batch: pa.RecordBatch) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in batch.to_pylist()}


def test_it_goes_there_and_back(connection: Connection, collection: dict[str, Any], tmp_path: Path) -> None:
    """Every point with its payload and all of its vectors, and the configuration, is in Parquet, in a new directory and in JSON
    lines; a record without other vectors has the hash that it would have in a store that keeps only one."""
    run = begun(connection, collection)
    assert backed_up(run) == 60
    store = source({k: v for k, v in collection.items() if k != "store"}, None, True, None)
    there = rows_of(store.records("docs").fetch(IDS))
    parts = dataset.read_manifest(run.path("snapshot"))[1]
    kept = [row for part in parts for row in dataset.read_part(run.path("snapshot"), part).to_pylist()]
    hashes = {row["id"]: row.pop("content_hash") for row in kept}
    assert {row["id"]: row for row in kept} == there
    one = there[IDS[0]]
    assert one["others"] is None
    assert hashes[IDS[0]] == canonical.content_hash(one["document"], one["metadata"], one["uri"])
    assert hashes[IDS[1]] != canonical.content_hash(*(there[IDS[1]][name] for name in ("document", "metadata", "uri")))

    assert restore.restore(run, str(tmp_path / "again")) == {"docs": 60}
    reopened = client.opened(path=str(tmp_path / "again"))
    copy = source({"path": str(tmp_path / "again"), "vector": "image", "document": "path"}, None, True, None)
    assert rows_of(copy.records("docs").fetch(IDS)) == there
    assert configuration.read(reopened, "docs")["params"].keys() >= {"vectors", "sparse_vectors"}
    with pytest.raises(UsageError, match="already holds"):
        restore.restore(run, str(tmp_path / "again"))
    client.close_directory(str(tmp_path / "again"))
    assert written_as(Restore(run_id="r", database="DATABASE_URL")) == "qdrant"
    with pytest.raises(UsageError, match=r"run r read qdrant, .*: leave format out"):
        written_as(Restore(run_id="r", database="DATABASE_URL", format="chroma"))
    assert restore.export(run, str(tmp_path / "lines")) == {"docs": 60}
    lines = {row["id"]: row for row in map(json.loads, (tmp_path / "lines" / "docs.jsonl").read_text().splitlines())}
    assert lines[IDS[1]]["others"]["words"] == {"indices": [3, 70000], "values": [0.5, 0.1]}
    assert (lines[IDS[0]]["others"], lines[IDS[1]]["metadata"]["path"]) == (None, "1.jpg")


def test_a_deferred_point_is_counted_and_waited_for(qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    """``prevent_unoptimized`` hides points from a scroll until they are indexed: a listing waits for them, and says so where that
    takes too long."""
    monkeypatch.setattr(qdrant_records, "HIDDEN_PAUSE", 0.05)
    monkeypatch.setattr(qdrant_records, "HIDDEN_SECONDS", 0.3)
    opened = client.opened(url=qdrant.url)
    settings = {"prevent_unoptimized": True, "indexing_threshold": 1}
    configuration.create(opened, "docs", {"params": PARAMS, "optimizer_config": settings})
    qdrant.server.hold("yellow")
    body = {"points": [{"id": n, "vector": {"image": [1.0] * 4}, "payload": {}} for n in range(500)]}
    assert opened.rest
    opened.rest.send("PUT", "collections/docs/points", body, wait="false")
    read = source({"url": qdrant.url, "vector": "image"}, None, True, None).records("docs")
    assert read.count() == 500
    assert 0 < read.hidden() <= 500
    with pytest.raises(TransientError, match=r"points of docs at .* are hidden until indexed \(prevent_unoptimized\)"):
        read.ids()
    qdrant.server.hold(None)
    monkeypatch.setattr(qdrant_records, "HIDDEN_SECONDS", 30.0)
    assert len(read.ids()) == read.count() == 500
    settings = configuration.read(opened, "docs")["optimizer_config"]
    indexing.hold_back(opened, "docs")
    writing.upsert(
        opened,
        "docs",
        [{"id": 1_000 + n, "vector": {"image": np.ones(4, np.float32)}, "payload": {}} for n in range(500)],
    )
    assert read.hidden() == 0
    indexing.put_back(opened, "docs", settings)
    indexing.wait_for_green(opened, "docs")
    assert len(read.ids()) == 1_000
