"""The metric of a collection is the one its index was built with, wherever Chroma keeps it, and is proven by a query."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from tasks.base import settings
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.runs.database import database_url
from tasks.runs.plan import from_json
from tasks.runs.run import open_run
from tasks.stores.chroma import configuration as chroma_settings, store as chroma
from tasks.stores.interface import Metric, records
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.chroma_directories import VERSIONS, Old, unpacked
from tests.helpers.data import records_of
from tests.helpers.pipeline import build, gates, verify
from tests.helpers.servers import chroma_server


def planned(chroma_: dict[str, Any], **parameters: Any) -> Planned:
    form = parse(ChromaToPgvector, {"chroma": chroma_, **parameters})
    with connect(database_url(form.database)) as connection:
        return make_plan(connection, form.request(), "planned")


def metrics(plan: Planned) -> dict[str, str]:
    return {t.collection.name: t.collection.metric for t in plan.plan.targets}


def forget(path: Path, *statements: str) -> None:
    """Makes a directory say less than it did, or something else."""
    with closing(sqlite3.connect(path / "chroma.sqlite3")) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Old, dict[str, Any]]]:
    """A server of today over a directory of 0.6.3, and how to reach it."""
    old = unpacked("0.6.3", tmp_path_factory.mktemp("old"))
    with chroma_server(old.path) as server:
        yield old, {"host": "127.0.0.1", "port": server.port}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_keeps_it_somewhere(connection: Connection, tmp_path: Path, version: str) -> None:
    """In the configuration, or the vector segment: also where the collection's own metadata lost it or lies, and for a
    collection of one row or none; graph settings come from the same place."""
    old = unpacked(version, tmp_path)
    result = planned({"path": str(old.path)})
    assert not result.problems
    assert metrics(result) == {name: of["metric"] for name, of in old.truth.items()}
    tuned = next(t.collection for t in result.plan.targets if t.collection.name == "tuned")
    assert (tuned.m, tuned.ef_construction, tuned.ef_search) == (8, 50, 70)


def test_a_server_of_an_old_directory(connection: Connection, served: tuple[Old, dict[str, Any]]) -> None:
    """It shows neither the segment nor a true configuration: the query tells, and a collection without rows is asked
    for, with the argument to give."""
    old, server = served
    result = planned(server)
    wanted = {name: of["metric"] for name, of in old.truth.items()}
    assert {n: m for n, m in metrics(result).items() if n != "no-row"} == {
        n: m for n, m in wanted.items() if n != "no-row"
    }
    assert result.problems == [
        "no-row has no vectors that show its metric, and its configuration says l2 and its metadata says ip; "
        "name it: -p metrics.no-row=ip"
    ]
    assert "lost: its configuration says l2, but it returns cosine distances, so cosine is used" in result.warnings
    second = planned(server, metrics={"no-row": "ip"})
    assert not second.problems
    assert metrics(second) == wanted
    assert from_json(second.plan.as_json()) == second.plan


def test_a_run_over_a_server_whose_metadata_is_lost(connection: Connection, served: tuple[Old, dict[str, Any]]) -> None:
    """What the plan has proven is what is indexed, searched and compared."""
    run = build("lost", chroma=served[1], collections=["lost"])
    (report,) = verify(run, gates(), None).targets
    assert report.passed
    assert run.plan.targets[0].place.layout.opclass == "vector_cosine_ops"
    assert {"distances", "query parity"} <= {c.name for c in report.checks}


def test_a_run_of_an_earlier_version_that_took_it_for_another(connection: Connection, tmp_path: Path) -> None:
    """Its plan is frozen with the wrong metric; the report says what is wrong with it, and what to do."""
    old = unpacked("0.4.24", tmp_path)
    build("early", chroma={"path": str(old.path)}, collections=["old-cosine"])
    connection.execute(
        "UPDATE vecferry.run SET plan = jsonb_set(plan, '{targets,0,collection,metric}', '\"l2\"') WHERE run_id = 'early'"
    )
    (report,) = verify(open_run("early", settings.DEFAULT_DATABASE), gates(), None).targets
    assert not next(c for c in report.checks if c.name == "distances").passed
    assert "old-cosine returns cosine distances, but this run was planned with l2: start a new run" in report.notes


def test_the_distances_win_over_what_is_stored(connection: Connection, tmp_path: Path) -> None:
    """Where nothing at all is left of the metric, Chroma goes by l2, and so do we; a wrong name for it is refused."""
    old = unpacked("0.4.24", tmp_path)
    forget(old.path, "DELETE FROM segment_metadata", "DELETE FROM collection_metadata")
    result = planned({"path": str(old.path)}, collections=["old-ip"], metrics={"old-ip": "ip"})
    assert metrics(result) == {"old-ip": "l2"}
    assert result.problems == ["metrics.old-ip is ip, but old-ip returns l2 distances: leave it out"]


def test_where_nothing_shows_it_the_user_names_it(connection: Connection, tmp_path: Path) -> None:
    """Zero vectors are as far from everything by two metrics; the name that is given is taken."""
    store = chroma.create_directory(str(tmp_path))
    made: Any = store.client.create_collection("zeros.of.it", embedding_function=None, metadata={"hnsw:space": "ip"})
    made.add(ids=["a", "b"], embeddings=np.zeros((2, 4), np.float32))
    assert metrics(planned({"path": str(tmp_path)})) == {"zeros.of.it": "ip"}
    result = planned({"path": str(tmp_path)}, metrics={"zeros.of.it": "cosine"})
    assert metrics(result) == {"zeros.of.it": "cosine"}
    assert "zeros.of.it: cosine, as `metrics` says; the collection itself does not tell" in result.warnings
    with pytest.raises(Exception, match="metrics names collections that are not migrated: nobody"):
        planned({"path": str(tmp_path)}, metrics={"nobody": "cosine"})


def test_a_model_of_ours_may_have_another_metric(connection: Connection, tmp_path: Path) -> None:
    """Where vectors are made anew, the metric that is named is the one of the new vectors."""
    old = unpacked("0.4.24", tmp_path)
    result = planned(
        {"path": str(old.path)}, collections=["old-l2"], metrics={"old-l2": "cosine"}, embedder="hashing/64"
    )
    assert not result.problems
    assert metrics(result) == {"old-l2": "cosine"}


@pytest.mark.parametrize("length", [0.0, 1e-6, 0.1, 0.69, 1.0, 1.45, 3.0, 1e4])
@pytest.mark.parametrize("metric", get_args(Metric))
def test_a_query_proves_the_metric(tmp_path: Path, metric: Metric, length: float) -> None:
    """For vectors of any length, also where two metrics order and measure alike; for zero vectors it says that it does
    not know."""
    store = chroma.create_directory(str(tmp_path))
    page = records_of(60, 5)
    vectors = np.stack(page.column("embedding").to_numpy(zero_copy_only=False)) * np.float32(length)
    for name, rows in (("many", 60), ("one", 1)):
        configuration: Any = {"hnsw": {"space": metric}}
        made = store.client.create_collection(name, embedding_function=None, configuration=configuration)
        made.add(ids=page.column("id").to_pylist()[:rows], embeddings=vectors[:rows])
        evidence = store.records(name).evidence()
        assert evidence.shown == (metric if length else None)
        assert evidence.says == {"its configuration": metric}


def test_nothing_is_proven_by_distances_that_no_metric_gives() -> None:
    """A store that answers something else is told apart from one that shows nothing."""
    vectors = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    queries = chroma_settings.probes(vectors)
    shown = chroma_settings.explained(queries, [vectors] * len(queries), [np.full(4, 0.123)] * len(queries))
    assert shown == (None, 4 * len(queries))
    assert len(chroma_settings.probes(np.zeros((3, 6), np.float32))) == 0


def test_restoring_a_collection_whose_metadata_lies(tmp_path: Path) -> None:
    """The restored collection searches by the metric that was found, whatever its metadata said."""
    old = unpacked("0.4.24", tmp_path)
    source = chroma.read(path=str(old.path), home=str(tmp_path / "home"))
    target = chroma.create_directory(str(tmp_path / "new"))
    for name in ("old-l2", "lying", "lost"):
        target.create(source.records(name).describe())
        target.write(name, source.records(name).fetch(source.records(name).ids().to_pylist()))
        assert target.records(name).evidence().shown == old.truth[name]["metric"]
    forget(
        old.path, "UPDATE collection_metadata SET str_value = 'cosine' WHERE key = 'hnsw:space' AND str_value = 'l2'"
    )
    second = chroma.read(path=str(old.path), home=str(tmp_path / "home")).records("old-l2").describe()
    assert second.metadata["hnsw:space"] == "cosine"
    target.client.delete_collection("old-l2")
    target.create(second)
    target.write("old-l2", pa.RecordBatch.from_pylist([{"id": "a", "embedding": [1.0] * 6}], records(6)))
    assert target.records("old-l2").evidence().shown == "l2"
