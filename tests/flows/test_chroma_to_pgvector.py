"""ChromaDB → pgvector through its whole life, over a directory and over a server."""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection
from tests.helpers.data import records_of
from tests.helpers.lifecycle import Migration, Rows, drive, tables
from tests.helpers.postgres_store import PostgresStore

pytestmark = pytest.mark.usefixtures("prefect")


def rows_of(store: Any, name: str) -> Rows:
    """Every record by id, vectors rounded to what all stores keep."""
    records = store.records(name)
    rows = records.fetch(records.ids().to_pylist()).to_pylist()
    return {r["id"]: {**r, "embedding": [round(x, 5) + 0.0 for x in r["embedding"]]} for r in rows}


def migration_of(connection: Connection, source: dict[str, Any]) -> Migration:
    store = chroma.connect(**source)
    target = PostgresStore(connection)
    step = iter(range(1, 100))

    def change() -> None:
        n = next(step)
        store.delete("docs", [f"row-{n:07d}"])
        store.write("docs", records_of(3, start=10_000 * n))
        store.write("docs", records_of(2, start=20, seed=n))  # the same ids with other vectors

    def served() -> Rows | None:
        return rows_of(target, "docs") if "docs" in target.names() else None

    def plan() -> Planned:
        parameters = parse(ChromaToPgvector, {"chroma": source})
        return make_plan(connection, parameters.request(), "life")

    return Migration(
        run=lambda run_id: chroma_to_pgvector(chroma=source, run_id=run_id, batch_rows=20),
        plan=plan,
        expected=lambda: rows_of(store, "docs"),
        served=served,
        change=change,
        writes=lambda: tables(connection),
    )


def test_lifecycle_from_a_directory(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Plan, run, roll back, run, cut over, roll back, cut over and contract, with changes at the source in between."""
    drive(migration_of(connection, {"path": chroma_dir(count=90)}))


def test_lifecycle_from_a_server(connection: Connection, chroma_server: int) -> None:
    """The same from a `chroma run` server."""
    source = {"host": "127.0.0.1", "port": chroma_server}
    store = chroma.connect(**source)
    store.create(Collection("docs", "", 0, 8, "l2"))
    store.write("docs", records_of(90))
    drive(migration_of(connection, source))


def test_a_later_run_loads_only_the_difference(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """A second run against our table touches what changed, says how many rows, and can be taken back."""
    source = {"path": chroma_dir(count=60)}
    assert chroma_to_pgvector(chroma=source, run_id="first", cutover="auto")["state"] == "cut_over"
    store, target = chroma.connect(**source), PostgresStore(connection)
    before = rows_of(target, "docs")
    store.write("docs", records_of(4, start=500))
    store.write("docs", records_of(2, start=10, seed=3))
    store.delete("docs", ["row-0000001"])

    outcome = chroma_to_pgvector(chroma=source, run_id="second")
    assert outcome["state"] == "cut_over"
    assert outcome["targets"][0]["mode"] == "sync"
    assert outcome["targets"][0]["touched"] == {"inserted": 4, "updated": 2, "deleted": 1}
    assert rows_of(target, "docs") == rows_of(store, "docs")

    from flows.rollback import rollback

    rollback(run_id="second")
    assert rows_of(target, "docs") == before


@pytest.mark.parametrize("cutover", ["auto", "ask"])
def test_what_is_written_until_the_switch_is_in_it(
    connection: Connection, chroma_dir: Callable[..., str], monkeypatch: pytest.MonkeyPatch, cutover: str
) -> None:
    """Changes after the run has caught up, however long somebody thinks about the switch, are in the table it switches to."""
    source = {"path": chroma_dir(count=60)}
    store, target = chroma.connect(**source), PostgresStore(connection)

    def thinks(*_: Any) -> bool:
        assert target.names() == []
        store.write("docs", records_of(3, start=500))
        store.write("docs", records_of(2, start=10, seed=3))
        store.delete("docs", ["row-0000001"])
        return True

    monkeypatch.setattr("flows.migrate.approved", thinks)
    assert chroma_to_pgvector(chroma=source, run_id="asked", cutover=cutover)["state"] == "cut_over"
    assert len(rows_of(target, "docs")) == 62
    assert rows_of(target, "docs") == rows_of(store, "docs")


def test_restore_gives_back_what_was_read(database: str, chroma_dir: Callable[..., str], tmp_path: Path) -> None:
    """A snapshot restored into a new directory equals the source: ids, documents, metadata, uris and vectors."""
    from flows.restore import restore

    path = chroma_dir(count=60)
    chroma_to_pgvector(chroma={"path": path}, run_id="kept", batch_rows=7)
    result = restore(run_id="kept", into=str(tmp_path / "again"))
    assert result["restored"] == {"docs": 60}
    assert re.search(
        rf"in the format of Chroma {re.escape(version('chromadb'))}, .* 1\.1, which do not, use --format jsonl",
        result["note"],
    )
    assert restore(run_id="kept", into=str(tmp_path / "lines"), format="jsonl")["note"] is None
    assert rows_of(chroma.connect(path=str(tmp_path / "again")), "docs") == rows_of(chroma.connect(path=path), "docs")
