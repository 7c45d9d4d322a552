"""What every store promises, cut by capability, over Chroma and Qdrant, each as a directory and as a server, PostgreSQL, live
tables and memory."""

import json
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import chromadb
import httpx
import numpy as np
import psycopg
import pyarrow as pa
import pytest

from tasks.base.errors import TransientError, UsageError
from tasks.stores import canonical
from tasks.stores.chroma import store as chroma
from tasks.stores.chroma.pages import from_chroma
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Collection, Hits, Metric, records, vectors
from tasks.stores.memory import MemoryStore
from tasks.stores.postgres import pgvector, wire
from tasks.stores.postgres.connection import Connection, Packed, connect
from tasks.stores.postgres.live_records import LiveRecords, LiveTables
from tasks.stores.postgres.live_table import Column, LiveTable
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.qdrant import store as qdrant
from tasks.stores.qdrant.client import close_directory
from tasks.stores.qdrant.points import point_id
from tasks.stores.qdrant.records import QdrantRecords
from tasks.stores.qdrant.store import QdrantStore
from tests.helpers.data import records_of
from tests.helpers.postgres_store import PostgresStore
from tests.helpers.qdrant import KEY, qdrant_for_tests
from tests.helpers.servers import chroma_server, free_port

METADATA: list[dict[str, Any] | None] = [
    None,
    {"int": 1, "zero": 0, "lowest": -(2**63), "highest": 2**63 - 1},
    {"whole": 1.0, "tenth": 0.1, "huge": 1e300, "tiny": 5e-324, "threshold": 1e16},
    {"true": True, "false": False},
    {"empty": "", "number": "1", "null": "null", "nan": "NaN", "escape": "\\u0000", "quote": "'\"", "emoji": "😀"},
    {"ints": [1, 2], "floats": [1.0, 2.5], "bools": [True, False], "strings": ["a", ""]},
]
MEMORY = "/dev/shm"
"""Files in memory: local mode writes each point to disk by itself, which takes a hundred times as long on one."""
POINT_IDS = ["0", "7", str(2**63), str(2**64 - 1), "00000000-0000-0000-0000-000000000000", str(uuid.uuid4())]
IDS = ["it's", '"q"', "two\nlines", "back\\slash", "100 %s", "{x}", "$1", "😀", "A", "a", "a ", "\\N", "x" * 10_000]


@dataclass(frozen=True)
class Backend:
    """A store under test, and where it deviates from the contract: stated here, and checked."""

    store: Any
    vector_tolerance: float = 0.0
    """Relative error of vectors under cosine."""
    normalizes_under_cosine: bool = False
    """Vectors come back with their direction, and length 1."""
    keeps_rows_without_vector: bool = True
    knows_dimensions_when_empty: bool = True
    keeps_graph_settings: bool = True
    metadata_beside_a_uri: str | None = None
    """What null metadata becomes in a record with a uri, which Chroma keeps among the metadata."""
    tells_size: bool = True
    has_text_alone: bool = False
    """A row of a live table says its text, null where that is empty, and no metadata or uri."""
    has_payload_alone: bool = False
    """A point of Qdrant says its payload: its document is the value of a key, and it has no uri."""
    ids: Sequence[str] = tuple(IDS)
    """Ids that are hard to keep. Those of Qdrant are integers and UUIDs."""

    def kept(self, page: pa.RecordBatch) -> dict[str, dict[str, Any]]:
        """The records as this store gives them back, their vectors apart."""
        rows = by_id(page)
        for row in rows.values():
            if row["metadata"] is None and row["uri"] is not None:
                row["metadata"] = self.metadata_beside_a_uri
            if self.has_text_alone:
                row |= {"document": row["document"] or None, "metadata": None, "uri": None}
            if self.has_payload_alone:
                row |= {"metadata": with_document(row), "uri": None}
        return rows


@dataclass(frozen=True)
class LiveStore:
    """Live tables, made and written to as an application does it."""

    connection: Connection
    tables: dict[str, LiveTable]

    def create(self, collection: Collection) -> None:
        columns = f"id text PRIMARY KEY, content text, embedding vector({collection.dimensions})"
        self.connection.execute(f'CREATE TABLE "{collection.name}" ({columns})')
        key, layout = (Column("id", "text"),), Layout("vector", collection.dimensions, collection.metric)
        self.tables[collection.name] = LiveTable("public", collection.name, key, "{content}", "embedding", layout)

    def write(self, name: str, page: pa.RecordBatch) -> None:
        present = page.column("embedding").is_valid().to_pylist()
        packed = [str(v.tolist()) if there else None for v, there in zip(vectors(page), present, strict=True)]
        rows = zip(page.column("id").to_pylist(), page.column("document").to_pylist(), packed, strict=True)
        with self.connection.cursor() as cursor:
            cursor.executemany(f'INSERT INTO "{name}" VALUES (%s, %s, %s)', list(rows))

    def version(self) -> dict[str, str]:
        return self._source().version()

    def names(self) -> list[str]:
        return self._source().names()

    def records(self, name: str) -> LiveRecords:
        return self._source().records(name)

    def _source(self) -> LiveTables:
        return LiveTables(lambda: nullcontext(self.connection), self.tables)


def with_document(row: dict[str, Any]) -> str | None:
    """The payload that says what the row does."""
    document = {} if row["document"] is None else {"document": row["document"]}
    return canonical.dumps({**(canonical.loads(row["metadata"]) or {}), **document})


def point_named(text: str) -> str:
    """The id itself where it is one of Qdrant's, else a UUID of it."""
    try:
        return str(point_id(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, text))


@dataclass(frozen=True)
class PointStore:
    """Qdrant, by an application that keeps a record's document in its payload, and names its points after its own ids."""

    store: QdrantStore
    names_of: dict[str, str]

    def create(self, collection: Collection) -> None:
        self.store.create(collection)

    def write(self, name: str, page: pa.RecordBatch) -> None:
        rows = [{**row, "id": self._named(row["id"]), "metadata": with_document(row)} for row in page.to_pylist()]
        self.store.write(name, pa.RecordBatch.from_pylist(rows, page.schema))

    def delete(self, name: str, ids: Sequence[str]) -> None:
        self.store.delete(name, [self._named(i) for i in ids])

    def version(self) -> dict[str, str]:
        return self.store.version()

    def names(self) -> list[str]:
        return self.store.names()

    def records(self, name: str) -> "PointRecords":
        return PointRecords(self.store.records(name), self.names_of)

    def _named(self, text: str) -> str:
        self.names_of[point_named(text)] = text
        return point_named(text)


@dataclass(frozen=True)
class PointRecords:
    """The records of such an application."""

    opened: QdrantRecords
    names_of: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.opened, name)

    def ids(self) -> pa.Array:
        return pa.array([self.names_of[i] for i in self.opened.ids().to_pylist()], pa.string())

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> pa.RecordBatch:
        return self._renamed(self.opened.fetch([point_named(i) for i in ids], content=content))

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        return map(self._renamed, self.opened.stream(content=content))

    def sample(self, rows: int, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        return map(self._renamed, self.opened.sample(rows, content=content))

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        return [replace(h, ids=[self.names_of[i] for i in h.ids]) for h in self.opened.search(queries, k, effort)]

    def _renamed(self, page: pa.RecordBatch) -> pa.RecordBatch:
        ids = pa.array([self.names_of[i] for i in page.column("id").to_pylist()], pa.string())
        return pa.RecordBatch.from_arrays([ids, *page.columns[1:]], schema=page.schema)


SINKS = ["memory", "chroma directory", "chroma server", "postgres", "qdrant directory", "qdrant server"]
SOURCES = [*SINKS, "live tables"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one `chroma run` server for all contracts."""
    with chroma_server(tmp_path_factory.mktemp("served")) as server:
        yield server.port


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    of_chroma: dict[str, Any] = {
        "vector_tolerance": 1e-6,
        "keeps_rows_without_vector": False,
        "knows_dimensions_when_empty": False,
        "metadata_beside_a_uri": "{}",
        "tells_size": False,
    }
    of_qdrant: dict[str, Any] = {
        "vector_tolerance": 1e-6,
        "normalizes_under_cosine": True,
        "keeps_graph_settings": False,  # a search says its own effort
        "tells_size": False,
        "has_payload_alone": True,
        "ids": POINT_IDS,
    }
    if request.param == "memory":
        yield Backend(MemoryStore())
    elif request.param == "qdrant server":
        with qdrant_for_tests(tmp_path_factory.mktemp("qdrant")) as server:
            key = KEY if server.api_key else None
            options = {"url": server.url, "api_key": key, "document": "document"}
            yield Backend(PointStore(qdrant.source(options, None, True, None), {}), **of_qdrant)
    elif request.param == "qdrant directory":
        with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as place:
            qdrant.create_directory(place)
            options = {"path": place, "document": "document"}
            yield Backend(PointStore(qdrant.source(options, None, True, None), {}), **of_qdrant)
            close_directory(place)
    elif request.param == "chroma directory":
        yield Backend(chroma.create_directory(str(tmp_path_factory.mktemp("chroma"))), **of_chroma)
    elif request.param == "chroma server":
        yield Backend(chroma.connect(host="127.0.0.1", port=request.getfixturevalue("served")), **of_chroma)
    else:
        url, name = request.getfixturevalue("postgres"), f"t_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(url("postgres"), autocommit=True) as administrator:
            administrator.execute(f"CREATE DATABASE {name} TEMPLATE with_vector")
        with connect(url(name)) as connection:
            if request.param == "postgres":
                yield Backend(PostgresStore(connection), keeps_graph_settings=False)
            else:
                yield Backend(LiveStore(connection, {}), keeps_graph_settings=False, has_text_alone=True)


@pytest.fixture
def new(backend: Backend, numbers: "count[int]" = count()) -> Callable[..., str]:  # noqa: B008  one count for the module
    """Makes a collection with these records and returns its name."""

    def make(page: pa.RecordBatch | None = None, metric: Metric = "l2", dimensions: int = 4) -> str:
        width = page.schema.field("embedding").type.list_size if page else dimensions
        name = f"col-{next(numbers)}"
        backend.store.create(Collection(name, "", 0, width, metric, m=8, ef_construction=50, ef_search=60))
        if page:
            backend.store.write(name, page)
        return name

    return make


def page_of(ids: list[str], dimensions: int = 4, **columns: list[Any]) -> pa.RecordBatch:
    """Records of these ids: random vectors, and null where no column is given."""
    matrix = np.random.default_rng(len(ids)).standard_normal((len(ids), dimensions)).astype(np.float32)
    rows = [
        {"id": i, "embedding": matrix[n], **{name: values[n] for name, values in columns.items()}}
        for n, i in enumerate(ids)
    ]
    return pa.RecordBatch.from_pylist(rows, records(dimensions))


def by_id(page: pa.RecordBatch) -> dict[str, dict[str, Any]]:
    return {row["id"]: {k: v for k, v in row.items() if k != "embedding"} for row in page.to_pylist()}


of_sources = pytest.mark.parametrize("backend", SOURCES, indirect=True, scope="module")
of_sinks = pytest.mark.parametrize("backend", SINKS, indirect=True, scope="module")


@of_sources
class TestSource:
    """What it has, by name."""

    def test_an_unknown_collection_is_named_and_never_created(self, backend: Backend, new: Callable[..., str]) -> None:
        """Asking for what is not there says so in one line, says what there is, and makes nothing."""
        name, before = new(), backend.store.names()
        with pytest.raises(UsageError, match="nowhere") as raised:
            backend.store.records("nowhere")
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)
        assert backend.store.names() == before

    def test_versions_are_named(self, backend: Backend) -> None:
        """What keeps the records and what reads them say which they are; memory has nothing to say."""
        versions = backend.store.version()
        assert bool(versions) is not isinstance(backend.store, MemoryStore)
        assert all(product and number[0].isdigit() for product, number in versions.items())


@of_sources
class TestRecords:
    """One collection, open to be read."""

    def test_they_are_described(self, backend: Backend, new: Callable[..., str]) -> None:
        """A collection says its name, count, dimensions, metric and graph settings; its name is listed."""
        for metric in ("cosine", "l2", "ip"):
            name = new(records_of(9, 4), metric)
            opened = backend.store.records(name)
            described = opened.describe()
            assert (described.name, described.count, described.dimensions, described.metric) == (name, 9, 4, metric)
            assert described.identity or isinstance(backend.store, MemoryStore)
            assert (opened.count(), opened.metric, opened.evidence().shown) == (9, metric, metric)
            assert name in backend.store.names()
            settings = (described.m, described.ef_construction, described.ef_search)
            assert (settings == (8, 50, 60)) is backend.keeps_graph_settings

    def test_an_empty_collection(self, backend: Backend, new: Callable[..., str]) -> None:
        """It has no ids, no records and no neighbours, and that is no error."""
        opened = backend.store.records(new())
        described = opened.describe()
        assert described.count == opened.count() == 0
        assert (described.dimensions == 4) is backend.knows_dimensions_when_empty
        assert opened.ids().to_pylist() == []
        assert opened.fetch(["a"]).schema == records(described.dimensions)
        assert sum(batch.num_rows for batch in [*opened.stream(), *opened.sample(3)]) == 0

    def test_what_is_written_later_is_read(self, backend: Backend, new: Callable[..., str]) -> None:
        """Records that were opened when there were none give those that have come since."""
        name, page = new(), page_of(["a", "b"])
        opened = backend.store.records(name)
        backend.store.write(name, page)
        assert opened.fetch(["a", "b"]).schema == records(4)
        assert (opened.count(), opened.describe().dimensions, sorted(opened.ids().to_pylist())) == (2, 4, ["a", "b"])

    def test_ids_are_complete_and_fetch_takes_any_number(self, backend: Backend, new: Callable[..., str]) -> None:
        """5,000 ids are listed once each, and one fetch returns them all, more than a page of any store."""
        page = records_of(5_000, 4)
        opened = backend.store.records(new(page))
        ids = opened.ids()
        assert ids.type == pa.string()
        assert sorted(ids.to_pylist()) == page.column("id").to_pylist()
        fetched = opened.fetch([f"absent-{i}" for i in range(100)] + ids.to_pylist())
        assert fetched.schema == records(4)
        assert by_id(fetched) == backend.kept(page)
        streamed = pa.Table.from_batches(list(opened.stream())).combine_chunks().to_batches()[0]
        assert streamed.num_rows == 5_000
        assert by_id(streamed) == backend.kept(page)

    def test_a_stream_without_content(self, backend: Backend, new: Callable[..., str]) -> None:
        """It has every id and vector all the same."""
        page = records_of(30, 4)
        opened = backend.store.records(new(page))
        for read in (pa.Table.from_batches(list(opened.stream(content=False))), opened.fetch(IDS[:2], content=False)):
            assert read.schema == records(4)
        batches = list(opened.stream(content=False))
        rows = {i: v for b in batches for i, v in zip(b.column("id").to_pylist(), vectors(b), strict=True)}
        for i, vector in zip(page.column("id").to_pylist(), vectors(page), strict=True):
            np.testing.assert_array_equal(rows[i], vector)

    def test_a_sample_is_random_and_has_vectors(self, backend: Backend, new: Callable[..., str]) -> None:
        """So many records, each once, others the next time; all of them where fewer are there."""
        page = records_of(200, 4)
        opened = backend.store.records(new(page))
        drawn = [[i for b in opened.sample(20) for i in b.column("id").to_pylist()] for _ in range(2)]
        assert [len(set(ids)) for ids in drawn] == [20, 20]
        assert set(drawn[0]) != set(drawn[1])
        assert sum(batch.num_rows for batch in opened.sample(1_000)) == 200

    def test_only_what_has_a_vector_is_sampled(self, backend: Backend, new: Callable[..., str]) -> None:
        """Records without one are passed over, and others drawn in their place."""
        if not backend.keeps_rows_without_vector:
            return
        name = new(page_of(["a", "b"]))
        backend.store.write(name, pa.RecordBatch.from_pylist([{"id": f"none-{n}"} for n in range(8)], records(4)))
        drawn = [i for b in backend.store.records(name).sample(2) for i in b.column("id").to_pylist()]
        assert sorted(drawn) == ["a", "b"]

    def test_its_size(self, backend: Backend, new: Callable[..., str]) -> None:
        """Bytes, or nothing from a store that does not tell."""
        size = backend.store.records(new(records_of(50, 4))).size()
        assert (size is not None and size > 50 * 16) is backend.tells_size

    def test_fetch_ignores_ids_that_are_not_there(self, backend: Backend, new: Callable[..., str]) -> None:
        """Absent ids are left out, among them one that PostgreSQL could not hold; none at all gives an empty batch."""
        opened = backend.store.records(new(page_of(["a", "b"])))
        assert opened.fetch(["b", "absent", "nul\0"]).column("id").to_pylist() == ["b"]
        for ids in ([], ["absent"]):
            fetched = opened.fetch(ids)
            assert (fetched.num_rows, fetched.schema) == (0, records(4))

    def test_ids_survive(self, backend: Backend, new: Callable[..., str]) -> None:
        """Quotes, newlines, emoji, placeholders, ids that differ only in case or a trailing space, and 10 kB; of Qdrant the
        largest integers, and UUIDs."""
        opened = backend.store.records(new(page_of([*backend.ids])))
        assert sorted(opened.ids().to_pylist()) == sorted(backend.ids)
        for i in backend.ids:
            assert opened.fetch([i]).column("id").to_pylist() == [i]

    def test_content_survives_with_its_types(self, backend: Backend, new: Callable[..., str]) -> None:
        """A null document is not '', null metadata stays null, 1 is not 1.0 is not true, and uris come along."""
        texts = [None if m is None else canonical.dumps(m) for m in METADATA]
        documents, uris = (
            [None, "", "text", "two\nlines", "😀", "\\n"],
            [None, "s3://b/1", None, "", "file:///x", "%20"],
        )
        page = page_of([f"row-{i}" for i in range(len(METADATA))], document=documents, metadata=texts, uri=uris)
        opened = backend.store.records(new(page))
        assert by_id(opened.fetch(page.column("id").to_pylist())) == backend.kept(page)

    @pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
    def test_vectors_survive(self, backend: Backend, new: Callable[..., str], metric: Metric) -> None:
        """Vectors come back to the bit, or within 1e-6 of their length from a store that normalizes under cosine."""
        page = page_of([f"row-{i}" for i in range(50)], dimensions=33)
        fetched = backend.store.records(new(page, metric)).fetch(page.column("id").to_pylist())
        order = np.argsort(fetched.column("id").to_pylist()), np.argsort(page.column("id").to_pylist())
        got, wanted = vectors(fetched)[order[0]], vectors(page)[order[1]]
        if backend.normalizes_under_cosine and metric == "cosine":
            wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        off = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        assert off.max() <= (backend.vector_tolerance if metric == "cosine" else 0.0)


@of_sources
class TestSearch:
    """Search, for a store that has it."""

    @pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
    def test_the_nearest_come_first_with_true_distances(
        self, backend: Backend, new: Callable[..., str], metric: Metric
    ) -> None:
        """Ids and distances are those of an exact search: cosine distance, Euclidean and not squared, negative product."""
        page, queries = page_of([f"row-{i}" for i in range(60)], 8), np.random.default_rng(1).standard_normal((5, 8))
        opened, probes = backend.store.records(new(page, metric)), queries.astype(np.float32)
        true = exact_search(probes, [page], metric, 7)
        for effort in (None, 60):
            with opened.turns() as take, take():
                answers = opened.search(probes, 7, effort)
            for hits, exact in zip(answers, true, strict=True):
                assert hits.ids == exact.ids
                np.testing.assert_allclose(hits.distances, exact.distances, rtol=1e-5, atol=1e-5)
                assert hits.distances.dtype == np.float64

    def test_asking_for_more_than_there_is(self, backend: Backend, new: Callable[..., str]) -> None:
        """k beyond the collection returns what there is."""
        name = new(page_of(["a", "b"]))
        (hits,) = backend.store.records(name).search(np.ones((1, 4), np.float32), 10)
        assert sorted(hits.ids) == ["a", "b"]
        assert list(hits.distances) == sorted(hits.distances)


@of_sinks
class TestSink:
    """Create, write and delete."""

    def test_write_replaces_by_id(self, backend: Backend, new: Callable[..., str]) -> None:
        """Writing an id again replaces all of it: nothing of the earlier record stays."""
        name = new(page_of(["a", "b"], document=["old", "b"], metadata=['{"x":1}', None], uri=["u", None]))
        page = page_of(["a"], metadata=['{"y":2}'])
        backend.store.write(name, page)
        assert sorted(backend.store.records(name).ids().to_pylist()) == ["a", "b"]
        fetched = backend.store.records(name).fetch(["a"])
        assert by_id(fetched) == by_id(page)
        np.testing.assert_array_equal(vectors(fetched), vectors(page))

    def test_delete_takes_what_is_named(self, backend: Backend, new: Callable[..., str]) -> None:
        """Deleting removes the ids named, and an id that is not there is no error."""
        name = new(page_of(["a", "b", "c"]))
        backend.store.delete(name, ["b", "absent"])
        assert sorted(backend.store.records(name).ids().to_pylist()) == ["a", "c"]
        assert backend.store.records(name).count() == 2

    @pytest.mark.parametrize("verb", ["write", "delete"])
    def test_nothing_is_written_to_a_collection_that_is_not_there(self, backend: Backend, verb: str) -> None:
        """Writing to an unknown name is refused, not taken for a wish to create it."""
        before = backend.store.names()
        with pytest.raises(UsageError, match="nowhere"):
            getattr(backend.store, verb)("nowhere", page_of(["a"]) if verb == "write" else ["a"])
        assert backend.store.names() == before

    def test_a_record_without_a_vector(self, backend: Backend, new: Callable[..., str]) -> None:
        """It is kept with none; a store that cannot refuses by name and count, and writes nothing."""
        name = new()
        page = pa.RecordBatch.from_pylist([{"id": "a", "document": "d"}], records(4))
        if backend.keeps_rows_without_vector:
            backend.store.write(name, page)
            assert backend.store.records(name).fetch(["a"]).column("embedding").null_count == 1
            assert backend.store.records(name).search(np.ones((1, 4), np.float32), 1)[0].ids == []
        else:
            with pytest.raises(UsageError, match="1 record has no vector"):
                backend.store.write(name, page)
            assert len(backend.store.records(name).ids()) == 0


@pytest.mark.parametrize(
    ("metric", "theirs", "mapped"),
    [("l2", [0.0, 4.0], [0.0, 2.0]), ("ip", [1.0, -2.0], [0.0, -3.0]), ("cosine", [0.25], [0.25])],
)
def test_chroma_distances_are_mapped(metric: Metric, theirs: list[float], mapped: list[float]) -> None:
    """Chroma squares its l2 and writes 1 − dot for ip; Hits have the distance and −dot."""
    assert from_chroma(np.array(theirs), metric).tolist() == mapped


def test_a_record_without_a_vector_is_found_among_a_page(chroma_server: int) -> None:
    """Where Chroma answers null for one embedding, that record comes without one and the others with theirs."""
    page = records_of(40, 4)
    direct = chroma.connect(host="127.0.0.1", port=chroma_server)
    direct.create(Collection("docs", "", 0, 4, "l2"))
    direct.write("docs", page)

    def without(answer: dict[str, Any]) -> dict[str, Any]:
        for n, i in enumerate(answer.get("ids", [])):
            if i == "row-0000023" and answer.get("embeddings"):
                answer["embeddings"][n] = None
        return answer

    with proxy(chroma_server, without) as port:
        fetched = chroma.connect(host="127.0.0.1", port=port).records("docs").fetch(page.column("id").to_pylist())
    assert fetched.schema == records(4)
    assert by_id(fetched) == by_id(direct.records("docs").fetch(page.column("id").to_pylist()))
    missing = [
        i.as_py() for i, e in zip(fetched.column("id"), fetched.column("embedding"), strict=True) if not e.is_valid
    ]
    assert missing == ["row-0000023"]
    wanted = dict(zip(page.column("id").to_pylist(), vectors(page), strict=True)) | {"row-0000023": np.zeros(4)}
    for i, vector in zip(fetched.column("id").to_pylist(), vectors(fetched), strict=True):
        np.testing.assert_array_equal(vector, wanted[i])


def test_a_proxy_that_gives_up_is_a_transient_error(chroma_server: int) -> None:
    """A 503 on the way to Chroma may pass, so it is retried and not taken for the end."""
    direct = chroma.connect(host="127.0.0.1", port=chroma_server)
    direct.create(Collection("docs", "", 0, 4, "l2"))
    down: list[bool] = []
    with proxy(chroma_server, down=down) as port:
        store = chroma.connect(host="127.0.0.1", port=port)
        down.append(True)
        with pytest.raises(TransientError, match="503"):
            store.records("docs").ids()


def test_a_path_without_chroma_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A missing path, a directory without a database, and a file are one line each, and nothing is made there."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, reason in (("missing", "does not exist"), ("empty", "holds no Chroma database"), ("file", "")):
        refused(f"chroma.path: .*{name} {reason}", path=str(tmp_path / name))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["empty", "file"]


def test_a_server_that_is_not_there_is_refused() -> None:
    """A closed port names the address and the parameters to check."""
    port = free_port()
    refused(f"cannot reach Chroma at http://127.0.0.1:{port}.*chroma.port", host="127.0.0.1", port=port)


@pytest.mark.parametrize("name", ["tenant", "database"])
def test_a_wrong_tenant_or_database_is_refused(served: int, tmp_path: Path, name: str) -> None:
    """Of a directory and of a server alike, naming the parameter, and it is not created."""
    chroma.create_directory(str(tmp_path))
    for place in ({"path": str(tmp_path)}, {"host": "127.0.0.1", "port": served}):
        for _ in range(2):
            refused(f"chroma.{name}", **place, **{name: "nosuch"})


def test_a_collection_opens_without_its_model_or_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records are read although its configured embedding function cannot be built here."""
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

    monkeypatch.setenv("CHROMA_OPENAI_API_KEY", "sk-none")
    store = chroma.create_directory(str(tmp_path))
    made = store.client.create_collection("docs", embedding_function=OpenAIEmbeddingFunction())  # type: ignore[arg-type]
    made.add(ids=["a"], embeddings=[[1.0, 2.0]])
    monkeypatch.delenv("CHROMA_OPENAI_API_KEY")
    chromadb.api.client.SharedSystemClient.clear_system_cache()
    second = chroma.connect(path=str(tmp_path))
    assert second.records("docs").count() == 1
    assert second.records("docs").fetch(["a"]).column("id").to_pylist() == ["a"]
    assert second.records("docs").search(np.ones((1, 2), np.float32), 1)[0].ids == ["a"]


def test_postgres_lists_only_tables_of_our_shape(connection: Any) -> None:
    """A user's own table is no collection."""
    connection.execute("CREATE TABLE theirs (id text, embedding vector(3))")
    store = PostgresStore(connection)
    store.create(Collection("ours", "", 0, 3, "cosine"))
    assert store.names() == ["ours"]


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize("present", [[True, True, True], [True, False, True], [False, False, False]])
def test_arrays_of_vectors_in_wire_format(connection: Any, kind: pgvector.VectorType, present: list[bool]) -> None:
    """What pack_array packs is what PostgreSQL reads, absent vectors as null."""
    matrix = np.array([[1, -2.5], [0, 3], [65504, 1e-3]], np.float32)
    packed = wire.pack_array(matrix, np.array(present), kind, connection.adapters.types[kind].oid)
    rows = connection.execute(f"SELECT unnest(%b::{kind}[])", (Packed(packed),), binary=True).fetchall()
    unpacked = [None if row is None else wire.unpack([row], kind)[0].tolist() for (row,) in rows]
    rounded = matrix.astype(np.float16 if kind == "halfvec" else np.float32).astype(float).tolist()
    assert unpacked == [row if there else None for row, there in zip(rounded, present, strict=True)]


def test_memory_keeps_what_it_was_told() -> None:
    """A collection of the in-memory store is what it was created as, save for its count."""
    store, told = MemoryStore(), Collection("docs", "id", 99, 4, "ip", metadata={"a": 1})
    store.create(told)
    assert store.records("docs").describe() == replace(told, count=0)


def refused(pattern: str, **options: Any) -> None:
    """Opening Chroma so raises a UsageError of one line that matches."""
    with pytest.raises(UsageError, match=pattern) as raised:
        chroma.connect(**options)
    assert "\n" not in str(raised.value)


class proxy:
    """An HTTP server that passes everything on to Chroma, through ``change`` where the answer is JSON; 503 when down."""

    def __init__(
        self, to: int, change: Callable[[dict[str, Any]], dict[str, Any]] = lambda a: a, down: list[bool] | None = None
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                kind = {"content-type": self.headers.get("content-type") or "application/json"}
                answer = httpx.request(self.command, f"http://127.0.0.1:{to}{self.path}", content=body, headers=kind)
                data = b"upstream gave up" if down else answer.content
                if self.path.endswith("/get") and not down:
                    data = json.dumps(change(answer.json())).encode()
                self.send_response(503 if down else answer.status_code)
                self.send_header("content-type", "text/plain" if down else "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> int:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server.server_address[1]

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()
