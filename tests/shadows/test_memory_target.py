"""A target that no stage, check or verb knows of goes through the whole life of a migration."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from flows.catch_up import catch_up
from flows.contract import contract
from flows.cutover import cutover
from flows.rollback import rollback
from flows.verify import verify
from tasks.base.errors import UsageError, VerificationRefused
from tasks.embedders.hashing import HashingEmbedder
from tasks.planning import registry as planning
from tasks.runs import ledger
from tasks.runs.checkpoints import Mark
from tasks.runs.run import open_run
from tasks.stores import memory
from tasks.stores.interface import Collection, records, vector_column
from tasks.stores.memory import MemoryStore
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.lifecycle import Migration, Rows, drive, tables
from tests.helpers.memory_target import MemoryForm, aliases, memory_target, migrate_memory

__all__ = ["memory_target"]
OLD, NEW = HashingEmbedder(32), HashingEmbedder(64)
pytestmark = pytest.mark.usefixtures("prefect", "memory_target")


@pytest.fixture
def connection(ledger_database: str) -> Iterator[Connection]:
    """To the ledger, which lies in another database than the one that DATABASE_URL names."""
    with connect(ledger_database, "vecferry test") as opened:
        yield opened


@contextmanager
def a_store() -> Iterator[tuple[str, MemoryStore]]:
    """A store with 60 documents of one collection, under a name of its own."""
    name = f"m_{uuid4().hex[:8]}"
    store = memory.named(name)
    store.create(Collection("docs", "", 0, OLD.space.dimensions, "cosine"))
    say(store, {f"row {n}": f"what row {n} says of topic {n % 7}" for n in range(60)})
    yield name, store
    aliases.clear()


@pytest.fixture
def store(connection: Connection) -> Iterator[tuple[str, MemoryStore]]:
    with a_store() as kept:
        yield kept


def say(store: MemoryStore, texts: dict[str, str | None]) -> None:
    vectors = OLD.embed([text or "nothing" for text in texts.values()]).whole
    columns = [pa.array(list(texts)), pa.array(list(texts.values()), pa.string())]
    nothing = pa.nulls(len(texts), pa.string())
    store.write("docs", pa.RecordBatch.from_arrays(
        [*columns, nothing, nothing, vector_column(vectors)], schema=records(OLD.space.dimensions)
    ))  # fmt: skip


def migration_of(name: str, store: MemoryStore, connection: Connection) -> Migration:
    """The flow over that store, and the application's changes in its life."""
    step = iter(range(1, 50))

    def change() -> None:
        n = next(step)
        say(store, {f"row {100 + n}": f"new {n}", f"row {n}": f"changed {n}", f"row {20 + n}": None})
        store.delete("docs", [f"row {40 + n}"])

    def rows(collection: str, vectors: Callable[[dict[str, Any]], Any]) -> Rows:
        return {
            i: np.round(np.asarray(vectors(r), float), 5).tolist()
            for i, r in store.rows[collection].items()
            if r["document"]
        }

    def served() -> Rows | None:
        alias = aliases.get((name, "docs_live"))
        return rows(alias, lambda r: r["embedding"]) if alias else None

    form = MemoryForm(where=name)
    return Migration(
        run=lambda run_id: migrate_memory(where=name, batch_rows=20, run_id=run_id),
        plan=lambda: planning.make_plan(connection, form.request(), "life"),
        expected=lambda: rows("docs", lambda r: NEW.embed([r["document"]]).whole[0]),
        served=served,
        change=change,
        writes=lambda: [*tables(connection), *store.described],
        catch_up=lambda run_id: catch_up(run_id=run_id),
        lives_on=True,
    )


def test_its_whole_life(connection: Connection, store: tuple[str, MemoryStore]) -> None:
    """Plan, run, rollback, run, cutover, catch-up, rollback, cutover, contract, catch-up, with changes in between."""
    drive(migration_of(*store, connection))


def test_the_other_database_is_left_alone(
    connection: Connection, database: str, store: tuple[str, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a run stands in the database that DATABASE_URL names, nor is it needed."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    migrate_memory(where=store[0], run_id="r")
    assert cutover(run_id="r")["state"] == "cut_over"
    with connect(database, "vecferry test") as other:
        assert tables(other) == []


@pytest.mark.whole
def test_its_ledger_needs_no_pgvector(
    postgres: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The ledger lies in a database without the extension, by a role that may not make it."""
    name, role = f"plain_{uuid4().hex[:8]}", f"plain_{uuid4().hex[:8]}"
    with psycopg.connect(postgres("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
        admin.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(postgres(name), autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA vecferry AUTHORIZATION {role}")
        admin.execute("REVOKE CREATE, TEMPORARY ON DATABASE " + name + " FROM PUBLIC")
    url = postgres(name).replace("://postgres:", f"://{role}:").replace("user=postgres", f"user={role}")
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    monkeypatch.setenv("VECFERRY_DATABASE_URL", url)
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "home"))
    with connect(url, "vecferry test") as connection:
        assert connection.execute("SELECT current_user").fetchone() == (role,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE EXTENSION vector")
        with a_store() as (where, store):
            drive(migration_of(where, store, connection))
        assert connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'vector'").fetchone() == (0,)


def test_a_start_without_a_name_finds_its_run(connection: Connection, store: tuple[str, MemoryStore]) -> None:
    """A second start, as a schedule's, catches up the run of the same source and model, and switches it where that is asked for;
    another model is another run, and so is one after which nothing is left."""
    name, kept = store
    first = migrate_memory(where=name)["run_id"]
    say(kept, {"row 3": "changed later"})
    later = migrate_memory(where=name)
    assert (later["run_id"], later["done"]) == (first, [f"caught up run {first}: docs → {name}:docs_live: 1 updated"])
    assert migrate_memory(where=name, cutover="auto")["state"] == "cut_over"
    assert migrate_memory(where=name, embedder="hashing/128")["run_id"] != first
    rollback(run_id=first)
    with pytest.raises(UsageError, match=f"was rolled back: switch it again, vecferry cutover {first} -p database="):
        migrate_memory(where=name)
    contract(run_id=first)
    assert migrate_memory(where=name)["run_id"] != first


def test_a_kill_between_the_store_and_the_ledger(
    connection: Connection, store: tuple[str, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias is switched and the ledger does not know: the next cutover asks the store, and switches nothing twice."""
    name, _ = store
    assert migrate_memory(where=name, run_id="r")["state"] == "verified"
    with monkeypatch.context() as killed:
        killed.setattr(Mark, "alone", _killed)
        with pytest.raises(KeyboardInterrupt):
            cutover(run_id="r")
    assert aliases
    assert ledger.get(connection, "r").state != "cut_over"
    assert cutover(run_id="r")["state"] == "cut_over"
    assert verify(run_id="r")["state"] == "cut_over"


def test_a_rollback_after_a_kill_between_the_store_and_the_ledger(
    connection: Connection, store: tuple[str, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People use what the ledger does not know to be switched: it is taken back as after a cutover, and nothing of it dropped."""
    name, kept = store
    migrate_memory(where=name, run_id="r")
    with monkeypatch.context() as killed:
        killed.setattr(Mark, "alone", _killed)
        with pytest.raises(KeyboardInterrupt):
            cutover(run_id="r")
    [made] = [collection for collection in kept.rows if "__" in collection]
    assert rollback(run_id="r")["state"] == "rolled_back"
    assert not aliases
    assert kept.rows[made], "what was switched was dropped"
    assert cutover(run_id="r")["state"] == "cut_over"


def test_a_cutover_after_a_kill_in_a_rollback(
    connection: Connection, store: tuple[str, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger says that the run is cut over and the store that it is not: nobody is told that it is, and the rollback goes on."""
    migrate_memory(where=store[0], run_id="r", cutover="auto")
    with monkeypatch.context() as killed:
        killed.setattr(Mark, "alone", _killed)
        with pytest.raises(KeyboardInterrupt):
            rollback(run_id="r")
    assert not aliases
    with pytest.raises(UsageError, match=r"people do not use what run r has made, .* vecferry rollback r -p database="):
        cutover(run_id="r")
    assert rollback(run_id="r")["state"] == "rolled_back"
    assert cutover(run_id="r")["state"] == "cut_over"
    assert aliases


def _killed(mark: Mark) -> None:
    raise KeyboardInterrupt


def test_a_query_that_is_not_answered_holds_the_switch(
    connection: Connection, store: tuple[str, MemoryStore], tmp_path: Path
) -> None:
    """The run ends with the check's line, and its queries are in the report; once the file asks for what is there it goes on."""
    path = tmp_path / "queries.jsonl"
    asked = [
        '{"query": "what row 3 says of topic 3", "expected": "row 3"}',
        '{"query": "topic 4", "expected": "nobody"}',
    ]
    path.write_text("\n".join(asked))
    with pytest.raises(VerificationRefused, match=r"queries \(1 of 2 queries are answered, required each within 10\)"):
        migrate_memory(where=store[0], run_id="r", queries=str(path))
    report = open_run("r", "VECFERRY_DATABASE_URL").path("report.json")
    told = json.loads(Path(report).read_text())["targets"][0]
    assert [answer.get("rank") for answer in told["benchmark"]["queries"]] == [1, None]
    assert any(note.startswith("query 'topic 4': nobody is not among the first 10; ") for note in told["notes"])
    path.write_text(asked[0])
    assert migrate_memory(where=store[0], run_id="r")["state"] == "verified"


def test_old_and_new_vectors_are_compared(connection: Connection, store: tuple[str, MemoryStore]) -> None:
    """What a change of model does to searches is reported of any place that has the old vectors too."""
    name, _ = store
    migrate_memory(where=name, run_id="r")
    report = open_run("r", "VECFERRY_DATABASE_URL").path("report.json")
    with open(report) as handle:
        assert "old_new_overlap" in handle.read()
