"""The tests' own Qdrant server answers as Qdrant does, and fails when it is told to. Where VECFERRY_TEST_QDRANT_URL names a real
one, what does not need a failure is asked of that."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from qdrant_client import QdrantClient, models as m
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tests.helpers.memory import memory_folder
from tests.helpers.qdrant import Qdrant, client
from tests.helpers.qdrant_server import QdrantServer, qdrant_server

__all__ = ["client"]
FOUR = m.VectorParams(size=4, distance=m.Distance.COSINE)
TWO = m.DenseVectorNameConfig(dense=m.DenseVectorConfig(size=2, distance=m.Distance.DOT))
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
STRANGE = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def server(qdrant: Qdrant) -> QdrantServer:
    return qdrant.server


def point(identity: int | str, vector: Any = (1.0, 2, 3, 4), **payload: object) -> m.PointStruct:
    return m.PointStruct(id=identity, vector=vector if isinstance(vector, dict) else list(vector), payload=payload)


def refused(status: int, call: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """The body of the answer, which has to have that status."""
    with pytest.raises(UnexpectedResponse) as error:
        call(*arguments, **named)
    assert error.value.status_code == status
    return error.value.content.decode()


def alias(name: str, collection: str) -> m.CreateAliasOperation:
    return m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name=collection, alias_name=name))


def payloads(client: QdrantClient, collection: str = "docs") -> dict[int | str, Any]:
    return {one.id: one.payload for one in client.scroll(collection, limit=1000)[0]}


def test_a_point_comes_back_as_it_was_written(client: QdrantClient) -> None:
    """Payload and vectors are answered as they were written, cosine vectors as directions, for both kinds of id."""
    client.create_collection("docs", FOUR)
    client.upsert("docs", [point(1, image_path="a.png", n=None), point(UUID)])
    page, offset = client.scroll("docs", with_vectors=True)
    assert [one.id for one in page] == [1, UUID]
    assert page[0].payload == {"image_path": "a.png", "n": None}
    assert page[1].vector == [0.18257418, 0.36514837, 0.5477225, 0.73029673]
    assert offset is None
    assert client.count("docs").count == 2
    assert client.scroll("docs", limit=1)[1] == UUID


def test_every_kind_of_vector(client: QdrantClient) -> None:
    """Named, sparse and multi vectors are kept, searched, changed and deleted one by one."""
    multi = m.VectorParams(
        size=2,
        distance=m.Distance.DOT,
        multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection("docs", {"image": FOUR, "late": multi}, {"words": m.SparseVectorParams()})
    words = m.SparseVector(indices=[1, 7], values=[0.5, 0.25])
    client.upsert(
        "docs", [point(1, {"image": [0, 0, 0, 2.0], "late": [[1.0, 2], [3, 4]], "words": words}), point(2, {})]
    )
    assert client.retrieve("docs", [1], with_vectors=True)[0].vector == {
        "image": [0, 0, 0, 1],
        "late": [[1, 2], [3, 4]],
        "words": words,
    }
    assert client.query_points("docs", [[3.0, 4]], using="late").points[0].score == 25
    assert [one.id for one in client.query_points("docs", words, using="words").points] == [1]
    client.update_vectors("docs", [m.PointVectors(id=2, vector={"image": [1.0, 0, 0, 0]})])
    client.delete_vectors("docs", ["words"], [1])
    has = [m.Filter(must=[m.HasVectorCondition(has_vector=name)]) for name in ("image", "words")]
    assert [client.count("docs", count_filter=one).count for one in has] == [2, 0]


def test_an_upsert_drops_a_vector_that_it_does_not_name(client: QdrantClient) -> None:
    """A vector name beside the unnamed one: info becomes a map, and writing a whole point loses what it does not name; payload
    that is set keeps the vectors."""
    client.create_collection("docs", FOUR)
    client.upsert("docs", [point(1), point(2)])
    client.create_vector_name("docs", "clip", TWO)
    client.create_vector_name("docs", "clip", TWO)
    other = m.DenseVectorNameConfig(dense=m.DenseVectorConfig(size=3, distance=m.Distance.DOT))
    assert "different" in refused(400, client.create_vector_name, "docs", "clip", other)
    client.update_vectors("docs", [m.PointVectors(id=one, vector={"clip": [1, 2]}) for one in (1, 2)])
    client.upsert("docs", [point(2)])
    client.set_payload("docs", {"image_path": "b"}, [1])
    assert set(client.get_collection("docs").config.params.vectors) == {"", "clip"}
    without = m.Filter(must_not=[m.HasVectorCondition(has_vector="clip")])
    assert [one.id for one in client.scroll("docs", scroll_filter=without)[0]] == [2]
    client.delete_vector_name("docs", "clip")
    assert set(client.get_collection("docs").config.params.vectors) == {""}


def test_writes_that_depend(client: QdrantClient) -> None:
    """insert_only keeps what is there and brings back what was deleted, update_only makes nothing, update_filter decides."""
    client.create_collection("docs", FOUR)
    client.upsert("docs", [point(1, by="app"), point(2, by="app")])
    client.delete("docs", [2])
    client.upsert("docs", [point(1, by="us"), point(2, by="us")], update_mode=m.UpdateMode.INSERT_ONLY)
    assert payloads(client) == {1: {"by": "app"}, 2: {"by": "us"}}
    client.upsert("docs", [point(2, by="only"), point(3, by="only")], update_mode=m.UpdateMode.UPDATE_ONLY)
    by_app = m.Filter(must=[m.FieldCondition(key="by", match=m.MatchValue(value="app"))])
    client.upsert("docs", [point(one, by="filter") for one in (1, 2)], update_filter=by_app)
    assert payloads(client) == {1: {"by": "filter"}, 2: {"by": "only"}}


def test_payload_is_changed_by_id_and_by_filter(client: QdrantClient) -> None:
    """Set, overwritten, deleted and cleared; an id that no point has is an error for all but a delete."""
    client.create_collection("docs", FOUR)
    client.upsert("docs", [point(one, n=one) for one in (1, 2, 3)])
    client.set_payload("docs", {"x": 1}, m.Filter(must=[m.FieldCondition(key="n", range=m.Range(gte=2))]))
    client.overwrite_payload("docs", {"new": 1}, [1])
    client.delete_payload("docs", ["n"], [2])
    client.clear_payload("docs", [3])
    assert payloads(client) == {1: {"new": 1}, 2: {"x": 1}, 3: {}}
    assert "No point with id 9" in refused(404, client.set_payload, "docs", {"x": 1}, [9])
    client.delete("docs", [9])


def test_aliases(client: QdrantClient) -> None:
    """An alias is resolved before a collection, moves silently, cannot have a collection's name, and an error midway leaves what
    went before. Its collection takes it along."""
    for name in ("a", "b"):
        client.create_collection(name, FOUR)
    client.update_collection_aliases([alias("current", "a")])
    client.update_collection_aliases([alias("current", "b")])
    assert "already exists" in refused(409, client.update_collection_aliases, [alias("half", "a"), alias("a", "b")])
    aliases = {one.alias_name: one.collection_name for one in client.get_aliases().aliases}
    assert aliases == {"current": "b", "half": "a"}
    assert "Alias with the same name" in refused(400, client.create_collection, "current", FOUR)
    client.upsert("current", [point(1)])
    assert client.count("b").count == 1
    assert not client.delete_collection("current")  # an alias deletes nothing
    client.delete_collection("b")
    assert [one.alias_name for one in client.get_aliases().aliases] == ["half"]


def test_a_reader_sees_no_half_of_an_alias_call(qdrant: Qdrant, client: QdrantClient) -> None:
    """An alias that is taken away and made again in one call is never missing."""
    for name in ("a", "b"):
        client.create_collection(name, FOUR)
    client.update_collection_aliases([alias("current", "a")])
    ends, errors, reads = threading.Event(), [], 0

    def read() -> None:
        nonlocal reads
        with httpx.Client(base_url=qdrant.url, headers={"api-key": qdrant.api_key or ""}) as reader:
            while not ends.is_set():
                answer = reader.post("/collections/current/points/count", json={})
                reads += 1
                if answer.status_code != 200:
                    errors.append(answer.text)

    thread = threading.Thread(target=read)
    thread.start()
    gone = m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name="current"))
    for i in range(60):
        client.update_collection_aliases([gone, alias("current", "ab"[i % 2])])
    ends.set()
    thread.join()
    assert not errors
    assert reads


def test_a_configuration_is_answered_as_it_was_given(client: QdrantClient) -> None:
    """Vectors, indexes, optimizers, quantization, strict mode and metadata; a change leaves the rest, null takes metadata away."""
    int8 = m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, quantile=0.99))
    vector = m.VectorParams(size=4, distance=m.Distance.DOT, on_disk=True, hnsw_config=m.HnswConfigDiff(m=8))
    client.create_collection(
        "docs",
        {"image": vector},
        on_disk_payload=False,
        hnsw_config=m.HnswConfigDiff(m=24),
        optimizers_config=m.OptimizersConfigDiff(indexing_threshold=0),
        quantization_config=int8,
        strict_mode_config=m.StrictModeConfig(enabled=True, max_query_limit=5),
        metadata={"run": "r1", "app": 1},
    )
    client.create_payload_index(
        "docs", "n", m.IntegerIndexParams(type=m.IntegerIndexType.INTEGER, lookup=True, range=True)
    )
    info = client.get_collection("docs")
    assert info.config.params.vectors == {"image": vector}
    assert info.config.params.on_disk_payload is False
    assert (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct) == (24, 100)
    assert info.config.quantization_config == int8
    index = info.payload_schema["n"]
    assert (index.data_type, index.params.lookup) == (m.PayloadSchemaType.INTEGER, True)
    assert "Limit exceeded 6 > 5" in refused(400, client.scroll, "docs", limit=6)
    client.update_collection(
        "docs",
        vectors_config={"image": m.VectorParamsDiff(hnsw_config=m.HnswConfigDiff(ef_construct=50))},
        optimizers_config=m.OptimizersConfigDiff(indexing_threshold=20000),
        quantization_config=m.Disabled.DISABLED,
        metadata={"run": None},
    )
    config = client.get_collection("docs").config
    assert config.params.vectors["image"].hnsw_config == m.HnswConfigDiff(m=8, ef_construct=50)
    assert (config.optimizer_config.indexing_threshold, config.hnsw_config.m) == (20000, 24)
    assert (config.quantization_config, config.metadata) == (None, {"app": 1})


def test_what_is_wrong_is_refused(client: QdrantClient) -> None:
    """With the status and the words of Qdrant."""
    client.create_collection("docs", FOUR)
    assert "doesn't exist" in refused(404, client.count, "nothing")
    assert "already exists" in refused(409, client.create_collection, "docs", FOUR)
    assert "expected dim: 4, got 3" in refused(400, client.upsert, "docs", [point(1, (1, 2, 3))])
    assert "expected dim: 4, got 3" in refused(400, client.query_points, "docs", [1.0, 2, 3])
    assert "Not existing vector name" in refused(400, client.upsert, "docs", [point(1, {"clip": [1, 2]})])
    assert "not configured" in refused(400, client.query_points, "docs", [1.0, 2], using="clip")
    assert "not a valid point ID" in refused(400, client.upsert, "docs", [point("abc")])
    assert client.count("docs").count == 0


def test_what_is_well_formed_and_wrong_is_refused(client: QdrantClient) -> None:
    """Sizes, empty vectors, sparse vectors whose halves differ, a condition that asks nothing: 422, and the collection lives on."""
    client.create_collection("docs", FOUR, {"words": m.SparseVectorParams()})
    huge = m.DenseVectorNameConfig(dense=m.DenseVectorConfig(size=70_000, distance=m.Distance.DOT))
    assert "from 1 to 65536" in refused(422, client.create_vector_name, "docs", "clip", huge)
    assert "from 1 to 65536" in refused(422, client.create_collection, "no", FOUR.model_copy(update={"size": 0}))
    halves = m.SparseVector(indices=[1, 2], values=[0.5])
    assert "same length" in refused(422, client.upsert, "docs", [point(1, {"words": halves})])
    assert "must not be empty" in refused(422, client.upsert, "docs", [point(1, [])])
    nothing = m.PointVectors(id=1, vector={})
    assert "must specify vectors" in refused(422, client.update_vectors, "docs", [nothing])
    blank = m.Filter(must=[m.Filter(must_not=[m.FieldCondition(key="n")])])
    assert "At least one field condition" in refused(422, client.count, "docs", count_filter=blank)
    client.upsert("docs", [point(1, {"": [1.0, 2, 3, 4], "words": m.SparseVector(indices=[7, 1], values=[0.5, 1])})])
    (kept,) = client.retrieve("docs", [1], with_vectors=["words"])
    assert kept.vector == {"words": m.SparseVector(indices=[1, 7], values=[1, 0.5])}


def test_a_field_that_nobody_knows_is_refused(server: QdrantServer, client: QdrantClient) -> None:
    """A misspelt field of a request is an error here, where Qdrant itself would pass over it."""
    client.create_collection("docs", FOUR)
    body = {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payloads": {}}]}
    answer = httpx.put(f"{server.url}/collections/docs/points", json=body)
    assert (answer.status_code, "Extra inputs" in answer.text) == (400, True)
    body = {"points": [{"id": 1, "vector": [1, 2, 3, "4"]}]}
    assert httpx.put(f"{server.url}/collections/docs/points", json=body).status_code == 400


def test_snapshots(qdrant: Qdrant, client: QdrantClient) -> None:
    """Made, listed, put back as another collection, deleted."""
    client.create_collection("docs", FOUR)
    client.upsert("docs", [point(1, n=1)])
    made = client.create_snapshot("docs")
    assert [one.name for one in client.list_snapshots("docs")] == [made.name]
    client.recover_snapshot("again", f"{qdrant.url}/collections/docs/snapshots/{made.name}")
    assert payloads(client, "again") == {1: {"n": 1}}
    client.delete_snapshot("docs", made.name)
    assert client.list_snapshots("docs") == []


def test_a_kill_loses_nothing_that_was_acknowledged(server: QdrantServer, client: QdrantClient) -> None:
    """Points, configuration, indexes and aliases are there after SIGKILL and a start over the same folder."""
    client.create_collection("docs", FOUR, metadata={"run": "r1"})
    client.create_payload_index("docs", "image_path", "keyword")
    client.create_vector_name("docs", "clip", TWO)
    client.update_collection_aliases([alias("current", "docs")])
    for one in range(50):
        client.upsert("docs", [point(one, image_path=str(one))])
    client.update_vectors("docs", [m.PointVectors(id=7, vector={"clip": [1, 2]})])
    server.kill()
    with pytest.raises(ResponseHandlingException):
        client.count("docs")
    server.restart()
    info = client.get_collection("current")
    assert payloads(client) == {one: {"image_path": str(one)} for one in range(50)}
    assert (info.config.metadata, set(info.payload_schema)) == ({"run": "r1"}, {"image_path"})
    assert client.retrieve("docs", [7], with_vectors=["clip"])[0].vector == {"clip": [1, 2]}


@STRANGE
def test_versions(tmp_path: Path) -> None:
    """Before 1.18 no vector can be added; before 1.17 a mode of writing is passed over without a word, and the point lost."""
    with qdrant_server(tmp_path, version="1.16.3") as server:
        client = QdrantClient(server.url)
        client.create_collection("docs", FOUR)
        for version, kept, status in (("1.16.3", "us", 404), ("1.17.1", "app", 404), ("1.18.3", "app", 200)):
            server.restart(version)
            assert client.info().version == version
            client.upsert("docs", [point(1, by="app")])
            client.upsert("docs", [point(1, by="us")], update_mode=m.UpdateMode.INSERT_ONLY)
            assert payloads(client) == {1: {"by": kept}}
            body = {"dense": {"size": 2, "distance": "Dot"}}
            assert httpx.put(f"{server.url}/collections/docs/vectors/clip", json=body).status_code == status


@STRANGE
def test_keys(tmp_path: Path) -> None:
    """No key and a wrong one are 401; a key that may only read is 403 for a write; the version is told to everybody."""
    with qdrant_server(tmp_path, api_key="all", read_only_key="read") as server:
        QdrantClient(server.url, api_key="all").create_collection("docs", FOUR)
        assert "Must provide an API key" in refused(401, QdrantClient(server.url).get_collections)
        assert "Invalid API key" in refused(401, QdrantClient(server.url, api_key="no").get_collections)
        reader = QdrantClient(server.url, api_key="read")
        assert reader.count("docs").count == 0
        assert reader.scroll("docs") == ([], None)
        for call, arguments in (
            (reader.upsert, ("docs", [point(1)])),
            (reader.delete_collection, ("docs",)),
            (reader.update_collection_aliases, ([alias("current", "docs")],)),
        ):
            assert "Forbidden" in refused(403, call, *arguments)
        assert httpx.get(server.url).json()["version"] == "1.19.0"


def test_faults_on_demand(server: QdrantServer, client: QdrantClient) -> None:
    """The next calls of a kind fail, with or without effect, or are cut off, or time out while they wait; others go by."""
    client.create_collection("docs", FOUR)
    server.fail("upsert_points", 503, times=2)
    for _ in range(2):
        refused(503, client.upsert, "docs", [point(1)])
    client.upsert("docs", [point(1)])
    server.fail("upsert_points", 500, applied=True)
    refused(500, client.upsert, "docs", [point(2)])
    server.fail("upsert_points", -1, applied=True)
    with pytest.raises(ResponseHandlingException):
        client.upsert("docs", [point(3)])
    server.wait_timeout("write")
    assert client.upsert("docs", [point(4)]).status == m.UpdateStatus.WAIT_TIMEOUT
    assert client.count("docs").count == 4
    for status in (507, 500):
        server.disk_full(status)
        refused(status, client.create_collection, "more", FOUR)
        refused(status, client.set_payload, "docs", {"a": 1}, [1])
        assert client.count("docs").count == 4
        server.mend()
    server.delay("count_points", 0.2, times=1)
    started = time.monotonic()
    client.count("docs")
    assert time.monotonic() - started >= 0.2
    server.forget()
    client.count("docs")
    assert server.calls() == [("count_points", "docs", 200)]


def test_a_write_that_does_not_wait_comes_later(server: QdrantServer, client: QdrantClient) -> None:
    """It is acknowledged and not yet there; one that waits comes after it."""
    client.create_collection("docs", FOUR)
    server.lag(30)
    assert client.upsert("docs", [point(1, n=1)], wait=False).status == m.UpdateStatus.ACKNOWLEDGED
    assert client.count("docs").count == 0
    assert client.get_collection("docs").update_queue.length == 1
    assert client.set_payload("docs", {"n": 2}, [1]).status == m.UpdateStatus.COMPLETED
    assert payloads(client) == {1: {"n": 2}}


def test_a_collection_is_yellow_while_it_is_indexed(server: QdrantServer, client: QdrantClient) -> None:
    """Once it is past the threshold: at once after it was put back, green a little later; a test can hold it."""
    client.create_collection("docs", FOUR, optimizers_config=m.OptimizersConfigDiff(indexing_threshold=0))
    client.upsert("docs", [point(one) for one in range(100)])
    assert client.get_collection("docs").status == m.CollectionStatus.GREEN
    server.optimizing(300)
    client.update_collection("docs", optimizers_config=m.OptimizersConfigDiff(indexing_threshold=1))
    assert client.get_collection("docs").status == m.CollectionStatus.YELLOW
    server.optimizing(0.01)
    client.set_payload("docs", {"n": 1}, [1])
    until = time.monotonic() + 30
    while client.get_collection("docs").status != m.CollectionStatus.GREEN:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert client.get_collection("docs").indexed_vectors_count == 100
    server.hold("grey")
    assert client.get_collection("docs").status == m.CollectionStatus.GREY


def test_deferred_points_are_counted_and_not_read(server: QdrantServer, client: QdrantClient) -> None:
    """With prevent_unoptimized a new point is there and hidden until an optimizer has run, and a write waits for that."""
    small = m.OptimizersConfigDiff(indexing_threshold=1, prevent_unoptimized=True)
    client.create_collection("docs", FOUR, optimizers_config=small)
    client.upsert("docs", [point(one) for one in range(100)])
    server.hold("yellow")
    client.upsert("docs", [point(100), point(101)], wait=False)
    info = client.get_collection("docs")
    assert (info.points_count, info.update_queue.deferred_points) == (102, 2)
    assert client.count("docs").count == len(payloads(client)) == 100
    assert client.retrieve("docs", [101]) == []
    body = {"points": [{"id": 102, "vector": [1, 2, 3, 4]}]}  # the client would give up after the server's own second
    answer = httpx.put(f"{server.url}/collections/docs/points?wait=true&timeout=1", json=body, timeout=60)
    assert answer.json()["result"]["status"] == "wait_timeout"
    server.hold(None)
    assert client.count("docs").count == 103


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os.killpg(0, 15)"], ids=["killed", "whole group ended"])
def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path, end: str) -> None:
    """Even with one that was killed, and leaves nothing in memory."""
    with memory_folder(tmp_path / "qdrant") as folder:
        program = (
            "import os; from tests.helpers.qdrant_server import QdrantServer\n"
            f"server = QdrantServer({str(folder)!r}, '1.19.0', None, None); server.start()\n"
            f"print(server.pid, flush=True); {end}"
        )
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
        until = time.monotonic() + 30
        while psutil.pid_exists(pid) or (folder.exists() and folder != tmp_path / "qdrant"):
            assert time.monotonic() < until
            time.sleep(0.02)
