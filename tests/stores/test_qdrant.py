"""Qdrant as a store, beyond the contract of all stores: how it is opened, what its refusals mean, all vectors of a point,
acknowledged writes, indexing, and a collection's whole configuration."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import models

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.runs import dataset
from tasks.stores import canonical
from tasks.stores.interface import Collection, Selected, records, vectors
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant import configuration, indexing, writing
from tasks.stores.qdrant.client import Qdrant, close_directory, created, facts, opened
from tasks.stores.qdrant.errors import AbsentError, TooMuchError
from tasks.stores.qdrant.points import payload_texts, point_id
from tasks.stores.qdrant.shapes import Shape, chosen, shapes
from tasks.stores.qdrant.store import QdrantStore, create_directory, source
from tasks.stores.records import with_hash
from tests.helpers.qdrant_server import QdrantServer, qdrant_server
from tests.helpers.servers import free_port

Vectors = dict[str, Any]
UNNAMED: Vectors = {"vectors": {"size": 4, "distance": "Cosine"}}
NAMED: Vectors = {
    "vectors": {
        "image": {"size": 4, "distance": "Cosine"},
        "text": {"size": 3, "distance": "Dot"},
        "parts": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
    },
    "sparse_vectors": {"words": {}},
}
BESIDE = b'{"parts":[[1.0,2.0],[3.0,0.1]],"text":[0.25,0.5,0.1],"words":{"indices":[3,70000],"values":[0.5,0.1]}}'
IDS = ["7", str(2**64 - 1), str(uuid.UUID(int=5)), str(uuid.UUID(int=2**127))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """One server for the tests that break nothing of it for good."""
    with qdrant_server(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(params=["server", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Qdrant]:
    """Qdrant either way."""
    if request.param == "directory":
        yield created(str(tmp_path / "qdrant"))
        close_directory(str(tmp_path / "qdrant"))
    else:
        yield opened(url=request.getfixturevalue("server").url)


@pytest.fixture
def served(server: QdrantServer) -> Iterator[Qdrant]:
    """The server, which is left as it was."""
    yield opened(url=server.url)
    server.mend()
    server.hold(None)


@pytest.fixture
def collection() -> str:
    """A name that nobody has used."""
    return f"c-{uuid.uuid4().hex[:8]}"


def make(qdrant: Qdrant, collection: str, params: Vectors, **settings: Any) -> None:
    configuration.create(qdrant, collection, {"params": params, **settings})


def page(ids: list[str] = IDS, others: list[bytes | None] | None = None) -> pa.RecordBatch:
    """Points with a payload of its own each, and random vectors."""
    matrix = np.random.default_rng(len(ids)).standard_normal((len(ids), 4)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    rows = [
        {"id": i, "metadata": canonical.dumps({"image_path": f"{n}.jpg", "n": n}), "embedding": matrix[n]}
        | ({"others": others[n]} if others else {})
        for n, i in enumerate(ids)
    ]
    return pa.RecordBatch.from_pylist(rows, records(4, others=others is not None))


def rows_of(batch: pa.RecordBatch) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in batch.to_pylist()}


class TestOpening:
    """One line where there is nothing to open."""

    def test_a_server_and_a_directory_say_what_they_can_do(self, place: Qdrant) -> None:
        """A server of 1.19 adds vector names, and local mode deviates by facts that are declared."""
        can = place.server
        assert can.adds_vector_names
        assert can.conditional_updates
        assert {can.adds_beside_unnamed, can.indexes} == {not can.local}

    @pytest.mark.parametrize(
        ("number", "adds", "conditional"),
        [("1.16.3", False, False), ("1.17.0", False, True), ("1.18.0-dev", True, True)],
    )
    def test_facts_follow_the_version(self, number: str, adds: bool, conditional: bool) -> None:
        """Vector names are added from 1.18 on, and writes are conditional from 1.17 on."""
        assert (facts(number).adds_vector_names, facts(number).conditional_updates) == (adds, conditional)

    def test_neither_or_both_are_refused(self, tmp_path: Path) -> None:
        """A place is a server or a directory."""
        for named in ({}, {"url": "http://localhost", "path": str(tmp_path)}):
            refused(r"name one of qdrant.url and qdrant.path", **named)

    def test_a_directory_is_never_made(self, tmp_path: Path) -> None:
        """A wrong path makes nothing."""
        (tmp_path / "empty").mkdir()
        refused("does not exist", path=str(tmp_path / "missing"))
        refused("holds no collections", path=str(tmp_path / "empty"))
        assert [p.name for p in tmp_path.rglob("*")] == ["empty"]

    def test_a_directory_that_another_process_holds(self, tmp_path: Path) -> None:
        """It is refused in one line, and opened once the other has gone; one's own process opens it as often as it likes."""
        created(str(tmp_path / "qdrant"))
        close_directory(str(tmp_path / "qdrant"))
        code = "import sys; from qdrant_client import QdrantClient; c = QdrantClient(path=sys.argv[1]); print(1, flush=True); input()"
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "qdrant")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with other:
            assert other.stdout and other.stdout.readline()  # noqa: PT018
            refused("is open in another process", path=str(tmp_path / "qdrant"))
            other.communicate("\n")
        assert opened(path=str(tmp_path / "qdrant")) is opened(path=str(tmp_path / "qdrant"))
        close_directory(str(tmp_path / "qdrant"))

    def test_a_server_that_is_not_there(self) -> None:
        """The address and the parameter are named."""
        port = free_port()
        refused(f"cannot reach Qdrant at http://127.0.0.1:{port}.*qdrant.url", url=f"http://127.0.0.1:{port}")
        refused("is not a URL", url="localhost:6333")

    def test_a_server_that_went_away_is_a_transient_error(self, tmp_path: Path) -> None:
        """One that was reached is expected back."""
        with qdrant_server(tmp_path) as server:
            opened(url=server.url)
        with pytest.raises(TransientError, match="ConnectError"):
            opened(url=server.url)

    def test_what_is_no_qdrant(self) -> None:
        """A page, and JSON of something else, are told from Qdrant."""
        for text in ("<html>", '{"hello": 1}', "[]"):
            with answering(text) as url:
                refused("check qdrant.url|cannot be read", url=url)

    def test_an_old_server_is_refused(self) -> None:
        """By its version, with the one that is needed."""
        with answering('{"title": "qdrant", "version": "1.7.4"}') as url:
            refused("is version 1.7.4, and vecferry needs 1.10", url=url)

    def test_keys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key goes by name; a wrong one, and one that may only read, are one line each, and nothing is changed."""
        monkeypatch.setenv("RIGHT", "right")
        monkeypatch.setenv("READER", "reader")
        monkeypatch.setenv("WRONG", "wrong")
        with qdrant_server(tmp_path, api_key="right", read_only_key="reader") as server:
            make(opened(url=server.url, api_key="RIGHT"), "docs", UNNAMED)
            reader = opened(url=server.url, api_key="READER")
            assert reader.collections() == ["docs"]
            with pytest.raises(FatalError, match=r"check that the key named by qdrant.api_key may do this"):
                make(reader, "more", UNNAMED)
            for client in (lambda q: QdrantStore(q).names(), lambda q: QdrantStore(q).records("docs")):
                with pytest.raises((FatalError, UsageError), match=r"check qdrant.api_key"):
                    client(opened(url=server.url, api_key="WRONG"))
        refused("qdrant.api_key: neither an environment variable", url=server.url, api_key="NOWHERE")

    def test_a_url_and_a_key_go_by_name(self, server: QdrantServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A URL may be named as a secret is; the two names that are the default need not be set, and say so where one is needed."""
        monkeypatch.setenv("MY_QDRANT", server.url)
        for name in ("QDRANT_URL", "QDRANT_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        assert opened(url="MY_QDRANT", api_key="QDRANT_API_KEY").place == server.url
        refused("no Qdrant is named: give qdrant.url or qdrant.path, or set QDRANT_URL", url="QDRANT_URL")
        refused("qdrant.url: neither an environment variable nor", url="NOWHERE")


class TestRefusals:
    """What an answer means for a run."""

    @pytest.mark.parametrize(
        ("status", "kind", "message"),
        [
            (507, FatalError, "free some space"),
            (500, FatalError, "free some space"),
            (503, TransientError, "503"),
            (-1, TransientError, ""),
        ],
    )
    def test_a_status_has_a_class(
        self, server: QdrantServer, served: Qdrant, collection: str, status: int, kind: type[Exception], message: str
    ) -> None:
        """A full disk stops the run; what may pass is tried again later."""
        make(served, collection, UNNAMED)
        server.fail("write", status)
        with pytest.raises(kind, match=message) as raised:
            writing.upsert(served, collection, [{"id": 1, "vector": {"": [1.0] * 4}, "payload": {}}])
        assert "\n" not in str(raised.value)
        server.fail("write", status)
        with pytest.raises(kind, match=message):
            writing.delete(served, collection, [1])

    def test_a_rate_limit_is_waited_for(self, server: QdrantServer, served: Qdrant, collection: str) -> None:
        """A 429 is asked again, and the write comes once."""
        make(served, collection, UNNAMED)
        server.fail("upsert_points", 429)
        writing.upsert(served, collection, [{"id": 1, "vector": {"": [1.0] * 4}, "payload": {}}])
        assert QdrantStore(served).records(collection).count() == 1

    @pytest.mark.parametrize("verb", ["upsert_points", "update_vectors", "delete_points"])
    def test_a_write_that_is_not_completed_has_failed(
        self, server: QdrantServer, served: Qdrant, collection: str, verb: str
    ) -> None:
        """``wait_timeout`` is no success."""
        make(served, collection, UNNAMED)
        point = {"id": 1, "vector": {"": np.ones(4, np.float32)}, "payload": {}}
        writing.upsert(served, collection, [point])
        server.wait_timeout(verb)
        write: dict[str, Callable[[], Any]] = {
            "upsert_points": lambda: writing.upsert(served, collection, [point]),
            "update_vectors": lambda: writing.update_vectors(
                served, collection, [{"id": 1, "vector": point["vector"]}]
            ),
            "delete_points": lambda: writing.delete(served, collection, [1]),
        }
        with pytest.raises(TransientError, match="wait_timeout"):
            write[verb]()

    def test_a_wrong_dimension(self, place: Qdrant, collection: str) -> None:
        """It is named, with the one that is right, by a write and by a search."""
        make(place, collection, UNNAMED)
        with pytest.raises(FatalError, match=r"4.*3|3.*4"):
            writing.upsert(place, collection, [{"id": 1, "vector": {"": [1.0, 2.0, 3.0]}, "payload": {}}])
        with pytest.raises(UsageError, match=r"a query of 3 dimensions cannot be .*, whose unnamed vector has 4"):
            QdrantStore(place).records(collection).search(np.ones((1, 3), np.float32), 5)

    def test_what_is_not_there(self, place: Qdrant, collection: str) -> None:
        """An absent collection has a class of its own."""
        with pytest.raises(AbsentError, match=collection):
            configuration.read(place, collection)
        assert not configuration.exists(place, collection)


class TestVectors:
    """All vectors of a point."""

    def test_they_travel(self, place: Qdrant, collection: str) -> None:
        """Dense, sparse and multi-vectors beside the embedding come back as they were, and null where there are none."""
        make(place, collection, NAMED)
        store = QdrantStore(place, "image", payload_texts("image_path"))
        store.write(collection, page(others=[BESIDE, None, b'{"text":[1.0,2.0,3.0]}', None]))
        records_ = store.records(collection)
        fetched = records_.fetch(records_.ids().to_pylist())
        assert fetched.schema == records(4, others=True)
        rows = rows_of(fetched)
        assert {i: row["others"] for i, row in rows.items()} == dict(
            zip(IDS, [BESIDE, None, b'{"text":[1.0,2.0,3.0]}', None], strict=True)
        )
        assert rows[IDS[0]]["document"] == "0.jpg"
        np.testing.assert_allclose(np.array([rows[i]["embedding"] for i in IDS]), vectors(page()), atol=1e-7)

    def test_only_those_that_are_named_travel(self, place: Qdrant, collection: str) -> None:
        """The vector that a run makes is no part of what a record says."""
        make(place, collection, NAMED)
        QdrantStore(place, "image").write(collection, page(others=[BESIDE] * 4))
        few = QdrantStore(place, "image", others=["words"]).records(collection).fetch(IDS)
        assert set(few.column("others").to_pylist()) == {b'{"words":{"indices":[3,70000],"values":[0.5,0.1]}}'}
        none = QdrantStore(place, "image", others=[]).records(collection).fetch(IDS)
        assert none.schema == records(4)

    def test_an_unnamed_vector_beside_named_ones(self, place: Qdrant, collection: str) -> None:
        """The unnamed one is called "", and both are read."""
        make(place, collection, {**UNNAMED, "sparse_vectors": {"words": {}}})
        store, sparse = QdrantStore(place), b'{"words":{"indices":[1],"values":[2.0]}}'
        store.write(collection, page(others=[sparse, None, None, None]))
        rows = rows_of(store.records(collection).fetch(IDS))
        assert [rows[i]["others"] for i in IDS] == [sparse, None, None, None]
        assert all(row["embedding"] for row in rows.values())

    def test_they_are_part_of_the_hash(self) -> None:
        """A record's hash tells another sparse vector; it is the one of old for a record without any."""
        plain, beside = (with_hash(pa.Table.from_batches([page(others=o)])) for o in (None, [BESIDE, None, None, None]))
        first, *rest = zip(plain["content_hash"].to_pylist(), beside["content_hash"].to_pylist(), strict=True)
        assert first[0] != first[1]
        assert all(one == other for one, other in rest)

    def test_a_part_of_the_snapshot_keeps_them(self, tmp_path: Path) -> None:
        """Parquet gives back what was fetched, and a part of a store without them has no such column."""
        for others in ([BESIDE, None, None, None], None):
            table = with_hash(pa.Table.from_batches([page(others=others)]))
            part = dataset.write_part(str(tmp_path), "part.parquet", 0, 0, table)
            assert dataset.read_part(str(tmp_path), part).equals(table)

    def test_a_vector_that_is_not_there(self, place: Qdrant, collection: str) -> None:
        """It is refused with those that are, and so is one that is not dense."""
        make(place, collection, NAMED)
        with pytest.raises(
            UsageError, match="no vector clip: it has vector image, vector text, vector parts and vector words"
        ):
            QdrantStore(place, "clip").records(collection)
        with pytest.raises(UsageError, match="is sparse"):
            QdrantStore(place, "words").records(collection)
        make(place, f"{collection}-m", {"vectors": {"size": 4, "distance": "Manhattan"}})
        with pytest.raises(UsageError, match="Manhattan"):
            QdrantStore(place).records(f"{collection}-m").describe()

    def test_shapes(self) -> None:
        """What a collection's vectors are, by name."""
        every = shapes({"params": NAMED})
        assert every["parts"] == Shape("parts", "multi", 2, "Dot")
        assert every["words"] == Shape("words", "sparse")
        assert chosen("docs", shapes({"params": UNNAMED}), "").metric == "cosine"


def test_ids_have_one_text() -> None:
    """Integers and UUIDs are told from text, and nothing else is the id of a point."""
    assert [point_id(i) for i in ("7", IDS[1], IDS[2])] == [7, 2**64 - 1, IDS[2]]
    for text in ("", "x", "-1", "1.0", "007", str(2**64), "٧"):
        with pytest.raises(ValueError, match="badly formed hexadecimal UUID string"):
            point_id(text)


def test_documents_are_texts_of_the_payload() -> None:
    """By key, or by a path with dots; a number and what is missing are no document."""
    payloads = [{"image": {"path": "a"}, "n": 1}, {"image.path": "b"}, {"image": "c"}, {}]
    assert payload_texts("image.path")(payloads) == ["a", "b", None, None]
    assert payload_texts("n")(payloads) == [None] * 4


class TestWriting:
    """Writes that are done when the call returns."""

    def test_only_what_exists_gets_a_vector(self, place: Qdrant, collection: str) -> None:
        """A point that was deleted is named, not made anew; the others get theirs and keep all else."""
        make(place, collection, NAMED)
        store = QdrantStore(place, "image")
        store.write(collection, page(others=[BESIDE] * 4))
        new = [{"id": i, "vector": {"text": np.array([9, 8, 7], np.float32)}} for i in (7, 8, point_id(IDS[2]), 99)]
        assert writing.update_vectors(place, collection, new) == [8, 99]
        rows = rows_of(QdrantStore(place, "text").records(collection).fetch([*IDS, "8", "99"]))
        assert len(rows) == 4
        assert [rows[i]["embedding"] == [9, 8, 7] for i in IDS] == [True, False, True, False]
        assert all(b"words" in row["others"] and row["metadata"] for row in rows.values())

    def test_conditions(self, place: Qdrant, collection: str) -> None:
        """``insert_only`` leaves a point alone that is there, ``update_only`` makes none, and a filter chooses."""
        make(place, collection, UNNAMED)

        def point(number: int, value: str) -> dict[str, Any]:
            return {"id": number, "vector": {"": np.ones(4, np.float32)}, "payload": {"by": value}}

        writing.upsert(place, collection, [point(1, "app")])
        writing.upsert(place, collection, [point(1, "us"), point(2, "us")], mode="insert_only")
        writing.upsert(place, collection, [point(3, "us")], mode="update_only")
        own = {"must": [{"key": "by", "match": {"value": "us"}}]}
        writing.upsert(place, collection, [point(1, "later"), point(2, "later")], update_filter=own)
        rows = rows_of(QdrantStore(place, documents=payload_texts("by")).records(collection).fetch(["1", "2", "3"]))
        assert {i: row["document"] for i, row in rows.items()} == {"1": "app", "2": "later"}

    def test_vectors_and_payloads_apart(self, place: Qdrant, collection: str) -> None:
        """A vector is taken away, and a payload replaced, without the rest of the point."""
        make(place, collection, NAMED)
        store = QdrantStore(place, "image")
        store.write(collection, page(others=[BESIDE] * 4))
        writing.delete_vectors(place, collection, ["parts", "words"], [7])
        writing.overwrite_payload(place, collection, [7], {"new": 1})
        row = rows_of(store.records(collection).fetch(["7"]))["7"]
        assert (row["others"], row["metadata"]) == (b'{"text":[0.25,0.5,0.1]}', '{"new":1}')
        assert row["embedding"]
        assert writing.existing(place, collection, [7, 8, point_id(IDS[3])]) == {7, IDS[3]}

    def test_points_that_are_deleted_meanwhile_lose_nothing(self, place: Qdrant, collection: str) -> None:
        """A vector is taken, and a payload given, where there still is a point; the others are no error, and none is made."""
        make(place, collection, NAMED)
        store, ids = QdrantStore(place, "image"), [99, 7, point_id(IDS[1]), 8]
        store.write(collection, page(others=[BESIDE] * 4))
        writing.delete_vectors(place, collection, ["parts", "words"], ids)
        writing.overwrite_payload(place, collection, ids, {"new": 1})
        writing.delete_vectors(place, collection, ["text"], [99])
        rows = rows_of(store.records(collection).fetch([*IDS, "8", "99"]))
        assert {i for i, row in rows.items() if row["metadata"] == '{"new":1}'} == set(IDS[:2])
        assert {i for i, row in rows.items() if row["others"] == b'{"text":[0.25,0.5,0.1]}'} == set(IDS[:2])
        assert len(rows) == 4

    def test_fewer_at_once_where_the_server_wants_it(
        self, served: Qdrant, collection: str, server: QdrantServer
    ) -> None:
        """A refusal of the size halves the request; one point that is refused is the end."""
        make(served, collection, UNNAMED)
        points = [{"id": n, "vector": {"": np.ones(4, np.float32)}, "payload": {}} for n in range(64)]
        server.fail("upsert_points", 413, 2, message="Payload reached size limit.")
        writing.upsert(served, collection, points)
        assert QdrantStore(served).records(collection).count() == 64
        server.fail("upsert_points", 413, 100, message="Payload reached size limit.")
        with pytest.raises(TooMuchError, match="size limit"):
            writing.upsert(served, collection, points)

    def test_ids_that_are_none_of_a_point_are_refused(self, place: Qdrant, collection: str) -> None:
        """Before anything is written."""
        make(place, collection, UNNAMED)
        with pytest.raises(UsageError, match=r"1 id cannot be a point's.*'row-1'"):
            QdrantStore(place).write(collection, page(["7", "row-1"]))
        assert QdrantStore(place).records(collection).count() == 0


class TestIndexing:
    """Held back while much is written."""

    def test_it_is_held_back_and_put_back(self, served: Qdrant, collection: str) -> None:
        """Meanwhile nothing is indexed; after it, and where a killed process has held it back twice, the settings are as they were."""
        make(served, collection, UNNAMED, optimizer_config={"indexing_threshold": 777})
        before = configuration.read(served, collection)
        for times in (1, 2):
            for _ in range(times):
                indexing.hold_back(served, collection)
            assert indexing.is_held_back(served, collection)
            indexing.put_back(served, collection, before["optimizer_config"])
            assert not indexing.is_held_back(served, collection)
            assert configuration.differences(before, configuration.read(served, collection)) == []

    def test_a_directory_has_nothing_to_hold_back(self, tmp_path: Path) -> None:
        """Local mode has no index, and is green."""
        place = created(str(tmp_path))
        make(place, "docs", UNNAMED)
        indexing.hold_back(place, "docs")
        assert not indexing.is_held_back(place, "docs")
        indexing.put_back(place, "docs", configuration.read(place, "docs")["optimizer_config"])
        indexing.wait_for_green(place, "docs", seconds=1)
        close_directory(str(tmp_path))

    def test_green_is_waited_for(self, served: Qdrant, collection: str, server: QdrantServer) -> None:
        """Yellow is not yet done, and red will not be."""
        make(served, collection, UNNAMED)
        server.hold("yellow")
        with pytest.raises(TransientError, match="its status is yellow"):
            indexing.wait_for_green(served, collection, 0.3)
        ends = threading.Timer(0.3, server.hold, [None])
        ends.start()
        started = time.monotonic()
        indexing.wait_for_green(served, collection, 30)
        assert time.monotonic() - started >= 0.3
        ends.join()
        server.hold("red")
        with pytest.raises(FatalError, match="cannot index collection"):
            indexing.wait_for_green(served, collection, 30)


class TestConfiguration:
    """All of it is copied."""

    WHOLE: ClassVar[Vectors] = {
        "params": {
            "vectors": {
                "a": {"size": 4, "distance": "Dot", "on_disk": True, "hnsw_config": {"m": 24}},
                "b": {"size": 2, "distance": "Euclid"},
            },
            "sparse_vectors": {"s": {"index": {"on_disk": True}, "modifier": "idf"}},
            "on_disk_payload": False,
            "replication_factor": 1,
            "read_fan_out_factor": 1,
        },
        "hnsw_config": {"m": 8, "ef_construct": 50},
        "optimizer_config": {"indexing_threshold": 5000, "default_segment_number": 2},
        "quantization_config": {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}},
        "strict_mode_config": {"enabled": True, "max_query_limit": 500},
        "metadata": {"owner": "us", "nothing": None},
        "payload_schema": {
            "n": {"data_type": "integer", "params": {"type": "integer", "lookup": True, "range": False}},
            "image_path": {"data_type": "keyword"},
        },
    }  # fmt: skip

    def test_a_copy_differs_in_nothing(self, served: Qdrant, collection: str) -> None:
        """Vectors, hnsw, quantization, optimizers, strict mode, payload indexes, metadata: read, and made anew from it."""
        configuration.create(served, collection, self.WHOLE)
        there = configuration.read(served, collection)
        assert configuration.differences({**there, **self.WHOLE, "params": there["params"]} | {
            name: there[name] | self.WHOLE[name] for name in ("hnsw_config", "optimizer_config")
        } | {"payload_schema": there["payload_schema"]}, there, without=()) == []  # fmt: skip
        assert there["params"] | self.WHOLE["params"] == there["params"]
        assert there["payload_schema"]["n"] == self.WHOLE["payload_schema"]["n"]
        assert there["payload_schema"]["image_path"]["data_type"] == "keyword"
        configuration.create(served, f"{collection}-2", there)
        assert configuration.differences(there, configuration.read(served, f"{collection}-2"), without=()) == []

    def test_differences_are_named(self) -> None:
        """Each by its path, with both values; what is passed over is not."""
        there = {**self.WHOLE, "hnsw_config": {"m": 16}, "metadata": {}}
        assert configuration.differences(self.WHOLE, there) == [
            "hnsw_config.ef_construct: unset, not 50",
            "hnsw_config.m: 16, not 8",
        ]
        assert configuration.differences(self.WHOLE, there, without=("hnsw_config",)) == [
            "metadata.owner: unset, not us"
        ]

    @pytest.mark.parametrize(("params", "name"), [(UNNAMED, ""), (NAMED, "image")])
    def test_another_size(self, place: Qdrant, collection: str, params: Vectors, name: str) -> None:
        """One vector gets another size, and nothing else changes."""
        make(place, collection, params)
        before = configuration.read(place, collection)
        configuration.create(place, f"{collection}-2", configuration.resized(before, name, 6, "Dot"))
        after = configuration.read(place, f"{collection}-2")
        where = f"params.vectors{'.' if name else ''}{name}"
        assert configuration.differences(before, after) == [
            f"{where}.distance: Dot, not Cosine",
            f"{where}.size: 6, not 4",
        ]

    def test_what_is_missing_of_it_is_made(self, served: Qdrant, collection: str) -> None:
        """A collection that was half made gets its payload indexes, and those that it has stay."""
        make(served, collection, self.WHOLE["params"])
        for _ in range(2):
            configuration.complete(served, collection, self.WHOLE)
        assert configuration.read(served, collection)["payload_schema"].keys() == {"n", "image_path"}

    def test_its_owner(self, place: Qdrant, collection: str) -> None:
        """The run that made it is named in its metadata; somebody else's has none."""
        make(place, collection, UNNAMED, metadata={"vecferry": {"run_id": "r1"}, "theirs": 1})
        assert configuration.owner(configuration.read(place, collection)) == "r1"
        make(place, f"{collection}-2", UNNAMED, metadata={"vecferry": "no run"})
        assert configuration.owner(configuration.read(place, f"{collection}-2")) is None

    def test_nothing_is_made_twice(self, place: Qdrant, collection: str) -> None:
        """A name that is taken is refused, and what has it is left alone."""
        make(place, collection, UNNAMED)
        QdrantStore(place).write(collection, page())
        with pytest.raises(UsageError, match="already exists"):
            make(place, collection, NAMED)
        assert QdrantStore(place).records(collection).count() == 4

    def test_custom_sharding_is_refused(self, place: Qdrant, collection: str) -> None:
        """Shards that are chosen by key are not carried over in silence."""
        with pytest.raises(UsageError, match="sharding_method: custom"):
            make(place, collection, {**UNNAMED, "sharding_method": "custom"})
        assert not configuration.exists(place, collection)


class TestRestoring:
    """A snapshot is written back."""

    @pytest.mark.parametrize("where", ["a server", "another name", "a directory"])
    @pytest.mark.parametrize(("params", "name"), [(UNNAMED, ""), (NAMED, "image")])
    def test_configuration_and_all_vectors(
        self, served: Qdrant, collection: str, tmp_path: Path, where: str, params: Vectors, name: str
    ) -> None:
        """A collection is made as the source was, under its name or another, and every point is what it was."""
        make(served, collection, params, optimizer_config={"indexing_threshold": 777})
        store = QdrantStore(served, name)
        store.write(collection, page(others=[BESIDE, None, BESIDE, None] if name else None))
        described = store.records(collection).describe()
        taken = store.records(collection).fetch(IDS)
        with qdrant_server(tmp_path / "other") as other:
            into = {
                "a server": other.url,
                "another name": f"{other.url}/collections/new%20one",
                "a directory": str(tmp_path / "new"),
            }[where]
            restored = create_directory(into)
            restored.create(Collection(**described.as_json()))
            restored.write(collection, taken)
            opened_ = restored.records(collection)
            assert opened_.count() == 4
            there, wanted = rows_of(opened_.fetch(IDS)), rows_of(taken)
            for i in IDS:  # local mode normalizes what is normalized already
                np.testing.assert_allclose(there[i].pop("embedding"), wanted[i].pop("embedding"), rtol=1e-6)
            assert there == wanted
            assert restored.names() == ["new one" if where == "another name" else collection]
            if restored.qdrant.server.indexes:
                made = configuration.read(restored.qdrant, restored.names()[0])
                assert configuration.differences(configuration.read(served, collection), made) == []
            with pytest.raises(UsageError, match=r"already: write into another, --into|already holds"):
                create_directory(into).create(described)
        close_directory(str(tmp_path / "new"))

    def test_the_key_goes_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """That of a server is QDRANT_API_KEY's."""
        monkeypatch.setenv("QDRANT_API_KEY", "right")
        with qdrant_server(tmp_path, api_key="right") as server:
            restored = create_directory(server.url)
            restored.create(Collection("docs", "", 0, 4, "ip"))
            assert restored.names() == ["docs"]


class TestReading:
    """Ids and pages."""

    def test_ids_are_listed_by_pages(self, place: Qdrant, collection: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A listing goes on where it ended, through integers and UUIDs, whatever is written meanwhile."""
        monkeypatch.setattr("tasks.stores.qdrant.records.LISTED", 3)
        make(place, collection, UNNAMED)
        ids = [str(n) for n in range(10)] + [str(uuid.UUID(int=n)) for n in range(10)]
        QdrantStore(place).write(collection, page(ids))
        opened_ = QdrantStore(place).records(collection)
        listing = opened_._listed()
        first = next(listing)
        writing.delete(place, collection, [0, 1, 2])
        rest = [str(i) for part in listing for i in part]
        assert {str(i) for i in first} | set(rest) == set(ids)
        assert len(rest) == 17
        assert sorted(opened_.ids().to_pylist()) == sorted(ids[3:])

    def test_a_page_is_halved_where_the_server_wants_it(self, served: Qdrant, collection: str) -> None:
        """Strict mode's limit of an answer cuts the pages and loses nothing."""
        make(served, collection, UNNAMED)
        QdrantStore(served).write(collection, page([str(n) for n in range(50)]))
        served.rest.send(
            "PATCH", f"collections/{collection}", {"strict_mode_config": {"enabled": True, "max_query_limit": 7}}
        )  # type: ignore[union-attr]
        assert len(QdrantStore(served).records(collection).ids()) == 50

    def test_an_alias_is_read_as_its_collection(self, place: Qdrant, collection: str) -> None:
        """By the name that people give it."""
        make(place, collection, UNNAMED)
        QdrantStore(place).write(collection, page())
        alias = f"{collection}-alias"
        with place.refused():
            from_to = models.CreateAlias(collection_name=collection, alias_name=alias)
            place.client.update_collection_aliases([models.CreateAliasOperation(create_alias=from_to)])
        assert QdrantStore(place).records(alias).count() == 4
        assert place.aliases()[alias] == collection

    def test_a_plan_opens_it(self, server: QdrantServer, served: Qdrant, collection: str) -> None:
        """By the options that a plan keeps."""
        make(served, collection, NAMED)
        options = {"url": server.url, "vector": "image", "document": "image_path", "others": []}
        store = source(options, None, True, None)
        store.write(collection, page(others=[BESIDE] * 4))
        row = store.records(collection).fetch(["7"])
        assert (row.schema, row.column("document").to_pylist()) == (records(4), ["0.jpg"])
        chosen_ = Selected(collection, rows={"vector": "text", "others": ["words"]})
        other = source(options, [chosen_], True, None).records(collection)
        assert (other.shape.name, tuple(other.reading.others)) == ("text", ("words",))
        with pytest.raises(UsageError, match="has several dense vectors, vector image and vector text"):
            source({"url": server.url}, None, True, None).records(collection)
        make(served, f"{collection}-2", UNNAMED)
        assert source({"url": server.url}, None, True, None).records(f"{collection}-2").shape.name == ""

    def test_contents_come_without_the_embedding(self, place: Qdrant, collection: str) -> None:
        """All that a point says, and its other vectors; of the embedding nothing is sent."""
        make(place, collection, NAMED)
        store = QdrantStore(place, "image", payload_texts("image_path"))
        store.write(collection, page(others=[BESIDE, None, BESIDE, None]))
        contents, whole = (
            rows_of(read(IDS)) for read in (store.records(collection).contents, store.records(collection).fetch)
        )
        assert contents == {i: {**row, "embedding": None} for i, row in whole.items()}

    def test_documents_are_looked_up(
        self, served: Qdrant, collection: str, server: QdrantServer, connection: Connection
    ) -> None:
        """In a table of PostgreSQL, by a key of the payload."""
        connection.execute("CREATE TABLE images (n int, image_path text)")
        connection.execute("INSERT INTO images VALUES (0, 'a.jpg'), (2, 'c.jpg')")
        make(served, collection, UNNAMED)
        QdrantStore(served).write(collection, page())
        lookup = {"key": "n", "table": "images", "match": "n", "column": "image_path", "database": "DATABASE_URL"}
        opened_ = source({"url": server.url, "lookup": lookup}, None, True, None).records(collection)
        rows = rows_of(opened_.fetch(IDS))
        assert [rows[i]["document"] for i in IDS] == ["a.jpg", None, "c.jpg", None]


def refused(pattern: str, **options: Any) -> None:
    """Opening Qdrant so raises a UsageError of one line that matches."""
    with pytest.raises(UsageError, match=pattern) as raised:
        opened(**options)
    assert "\n" not in str(raised.value)


@contextmanager
def answering(text: str) -> Iterator[str]:
    """The URL of a server that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
