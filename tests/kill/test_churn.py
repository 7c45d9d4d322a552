"""A migration out of a running Chroma server that is written to all the while."""

import random
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.cutover import cutover
from tasks.runs import ledger
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.crowd import Crowd
from tests.helpers.data import records_of
from tests.helpers.postgres_store import PostgresStore
from tests.kill.moments import stage_of

ROWS, WIDTH = 3_000, 16
KINDS = ("insert", "document", "metadata", "vector", "delete", "reuse")
LONG = ("snapshot", "load", "index", "catch up", "verify")
"""Stages that take long enough for many writes; begin and list are over in a blink."""


@dataclass
class Writer:
    """Writes to a collection without a pause, the six kinds in turn, and counts them by the stage of the run."""

    port: int
    url: str
    run_id: str
    command: str = "run"
    stage: str = "begin"
    wrote: Counter[tuple[str, str]] = field(default_factory=Counter)

    def writing(self) -> AbstractContextManager[None]:
        return Crowd().acting(self._writes, self._watches)

    def _watches(self, stop: threading.Event) -> None:
        with connect(self.url, "churn watch") as connection:
            since = connection.execute("SELECT clock_timestamp()").fetchone()
            assert since
            while not stop.wait(0.01):
                if ledger.exists(connection):
                    self.stage = stage_of(connection, self.run_id, self.command, since[0], targets=1)

    def _writes(self, stop: threading.Event) -> None:
        collection = chroma.connect(host="127.0.0.1", port=self.port).client.get_collection(
            "docs", embedding_function=None
        )
        chance, vectors = random.Random(3), np.random.default_rng(3)
        ids, added = sorted(collection.get(include=[])["ids"]), 0

        def vector() -> Any:
            return vectors.standard_normal((1, WIDTH)).astype(np.float32)

        while not stop.is_set():
            for kind in KINDS:
                # The newest are fetched last: half of the deletes hit what the snapshot has not come to.
                place = chance.randrange(len(ids)) if chance.random() < 0.5 else len(ids) - 1 - chance.randrange(300)
                name, stage = ids[place], self.stage
                added += 1
                new: dict[str, Any] = {
                    "documents": [f"said {added}"],
                    "metadatas": [{"change": added}],
                    "embeddings": vector(),
                }
                if kind == "insert":
                    ids.append(f"new-{added:06d}")
                    collection.add(ids=[ids[-1]], **new)
                elif kind == "document":
                    collection.update(ids=[name], documents=new["documents"], embeddings=new["embeddings"])
                elif kind == "metadata":
                    collection.update(ids=[name], metadatas=new["metadatas"])
                elif kind == "vector":
                    collection.update(ids=[name], embeddings=new["embeddings"])
                else:
                    collection.delete(ids=[name])
                    if kind == "reuse":
                        collection.add(ids=[name], **new)
                    else:
                        del ids[place]
                self.wrote[stage, kind] += 1
                time.sleep(0.002)


@dataclass(frozen=True)
class Sides:
    """Both ends of the migration, compared without any of the code that migrates."""

    port: int
    connection: Connection

    def faults(self, table: str = "public.docs") -> list[str]:
        """Every row that is missing, orphaned or stale, by name."""
        expected, kept = self._expected(), self._stored(table)
        faults = [f"{i} is missing" for i in expected.keys() - kept.keys()]
        faults += [f"{i} is orphaned" for i in kept.keys() - expected.keys()]
        for name in expected.keys() & kept.keys():
            (text, vector), (other_text, other_vector) = expected[name], kept[name]
            if text != other_text:
                faults.append(f"{name} is stale: {other_text}, not {text}")
            if not np.allclose(vector, other_vector, atol=1e-5):
                faults.append(f"{name} has another vector")
        return faults

    def _expected(self) -> dict[str, tuple[Any, np.ndarray]]:
        collection = chroma.connect(host="127.0.0.1", port=self.port).client.get_collection(
            "docs", embedding_function=None
        )
        got = collection.get(include=["documents", "metadatas", "uris", "embeddings"])
        texts = zip(got["documents"] or [], got["metadatas"] or [], got["uris"] or [], strict=True)
        return {i: (t, np.asarray(v)) for i, t, v in zip(got["ids"], texts, got["embeddings"], strict=True)}  # type: ignore[arg-type]

    def _stored(self, table: str) -> dict[str, tuple[Any, np.ndarray]]:
        rows = self.connection.execute(
            f"SELECT id, document, metadata::text::json, uri, embedding::text FROM {table}"
        ).fetchall()  # type: ignore[arg-type]
        assert len({row[0] for row in rows}) == len(rows)
        return {i: ((d, m, u), np.array(v[1:-1].split(","), float)) for i, d, m, u, v in rows}


@pytest.fixture
def sides(chroma_server: int, connection: Connection, request: pytest.FixtureRequest) -> Sides:
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, WIDTH, "l2"))
    store.write("docs", records_of(getattr(request, "param", ROWS), WIDTH))
    return Sides(chroma_server, connection)


def migrate(sides: Sides, run_id: str) -> dict[str, Any]:
    return chroma_to_pgvector(chroma={"host": "127.0.0.1", "port": sides.port}, run_id=run_id, batch_rows=50)


def assert_busy(writer: Writer, stages: tuple[str, ...], least: int) -> None:
    """Catching up goes on while the index is built, so what was written in either is written in both."""
    beside = {"index": ("index", "catch up")}
    wrote = {(s, k): sum(writer.wrote[at, k] for at in beside.get(s, (s,))) for s in stages for k in KINDS}
    short = {what: count for what, count in wrote.items() if count < least}
    assert not short, f"too few writes to prove anything: {short} of {dict(writer.wrote)}"


@pytest.mark.usefixtures("prefect")
def test_writes_during_the_run_are_followed(sides: Sides, database: str) -> None:
    """Inserts, updates, deletes and reused ids during every stage, and after the cutover nothing missing, stale or orphaned."""
    writer = Writer(sides.port, database, "churn")
    with writer.writing():
        assert migrate(sides, "churn")["state"] == "verified"
    assert_busy(writer, LONG, 3)
    listed, fetched = sides.connection.execute(
        "SELECT sum(rows) FILTER (WHERE stage = 'list'), sum(rows) FILTER (WHERE stage = 'snapshot') FROM vecferry.batch"
    ).fetchone() or (0, 0)
    assert fetched < listed, "no listed id was deleted before it was fetched"

    assert cutover(run_id="churn")["state"] == "cut_over"
    assert sides.faults() == []


@pytest.mark.whole
@pytest.mark.usefixtures("prefect")
def test_writes_during_the_cutover_are_followed_by_a_later_run(sides: Sides, database: str) -> None:
    """Writes go on while the cutover catches up, verifies and switches; a later run brings the live table in line."""
    writer = Writer(sides.port, database, "churn")
    with writer.writing():
        assert migrate(sides, "churn")["state"] == "verified"
        writer.command, before = "cutover", writer.wrote.total()
        assert cutover(run_id="churn")["state"] == "cut_over"
    assert writer.wrote.total() - before > 50
    assert sides.faults(), "every write was caught by chance: nothing is left to follow"

    later = migrate(sides, "later")
    assert (later["state"], later["targets"][0]["mode"]) == ("cut_over", "sync")
    assert sides.faults() == []


@pytest.mark.parametrize("sides", [60], indirect=True)  # rows
@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        pytest.param("DELETE FROM {} WHERE id = 'row-0000007'", "row-0000007 is missing", marks=pytest.mark.whole),
        ("UPDATE {} SET document = 'old' WHERE id = 'row-0000007'", "row-0000007 is stale"),
        pytest.param(
            "INSERT INTO {} (id, document, metadata, uri, embedding) SELECT 'ghost', document, metadata, uri, embedding FROM {} LIMIT 1",
            "ghost is orphaned",
            marks=pytest.mark.whole,
        ),
        (
            "UPDATE {} SET embedding = (SELECT embedding FROM {} WHERE id = 'row-0000008') WHERE id = 'row-0000007'",
            "row-0000007 has another vector",
        ),
    ],
)
def test_the_comparison_finds_a_planted_fault(sides: Sides, plant: str, fault: str) -> None:
    """A row deleted, a stale document, an orphan and a vector of another row are each reported, and nothing else."""
    target = PostgresStore(sides.connection)
    target.create(Collection("copy", "", 0, WIDTH, "l2"))
    source = chroma.connect(host="127.0.0.1", port=sides.port)
    target.write("copy", source.records("docs").fetch(source.records("docs").ids().to_pylist()))
    assert sides.faults("public.copy") == []
    sides.connection.execute(plant.format("public.copy", "public.copy"))  # type: ignore[arg-type]
    result = sides.faults("public.copy")
    assert len(result) == 1
    assert fault in result[0]
