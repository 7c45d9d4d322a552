"""What a run promises beyond the straight way: resuming, smoke runs, syncs, replacing, re-embedding, refusals."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.contract import contract
from flows.cutover import cutover
from flows.rollback import rollback
from flows.verify import verify
from tasks.base.errors import BatchesFailed, FatalError, UsageError, VerificationRefused
from tasks.embedders.hashing import HashingEmbedder
from tasks.embedders.interface import Embedded, OnMade
from tasks.runs import holding, status
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import vectors
from tasks.stores.postgres.connection import Connection
from tests.flows.test_chroma_to_pgvector import rows_of
from tests.helpers.data import records_of
from tests.helpers.postgres_store import PostgresStore

pytestmark = pytest.mark.usefixtures("prefect")


def test_a_frozen_plan_is_not_changed(database: str, chroma_dir: Callable[..., str]) -> None:
    """Another value for the same run_id is refused by name; leaving it out resumes."""
    path = chroma_dir()
    chroma_to_pgvector(chroma={"path": path}, run_id="r", batch_rows=10)
    with pytest.raises(UsageError, match="batch_rows is 10 in the plan, now 20"):
        chroma_to_pgvector(chroma={"path": path}, run_id="r", batch_rows=20)
    assert chroma_to_pgvector(run_id="r")["state"] == "verified"


def test_a_changed_part_is_never_loaded(connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path) -> None:
    """One flipped byte in one part: that batch fails by name, the others load, and the repaired file reruns."""
    path = chroma_dir(count=60)
    chroma_to_pgvector(chroma={"path": path}, run_id="r", batch_rows=10)
    rollback(run_id="r")
    part = next((tmp_path / "home/runs/r/snapshot").rglob("part-00003.parquet"))
    good = part.read_bytes()
    part.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    with pytest.raises(BatchesFailed, match=r"1 batch failed in load: 3 .*SHA-256.*vecferry rerun r") as failed:
        chroma_to_pgvector(run_id="r")
    assert failed.value.batches == [3]
    outcome = status.outcome(connection, "r")
    assert (outcome.state, outcome.exit, outcome.next) == ("failed", 1, "vecferry rerun r")
    assert outcome.targets[0].failed_batches == (3,)
    assert outcome.targets[0].loaded == 50
    part.write_bytes(good)
    assert chroma_to_pgvector(run_id="r", batch_ids=[3])["state"] == "verified"


def test_a_named_batch_is_loaded_again_without_duplicates(
    connection: Connection, chroma_dir: Callable[..., str]
) -> None:
    """Naming a finished batch replaces its rows; a batch that is not there is an error."""
    source = {"path": chroma_dir(count=60)}
    chroma_to_pgvector(chroma=source, run_id="r", batch_rows=10)
    assert chroma_to_pgvector(run_id="r", batch_ids=[2, 4])["state"] == "verified"
    cutover(run_id="r")
    assert rows_of(PostgresStore(connection), "docs") == rows_of(chroma.connect(**source), "docs")
    with pytest.raises(UsageError, match="has no batch 99"):
        chroma_to_pgvector(chroma=source, run_id="other", batch_rows=10, batch_ids=[99])


def test_a_smoke_run_never_cuts_over(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """limit moves that many rows, verifies them, and stays invisible."""
    outcome = chroma_to_pgvector(chroma={"path": chroma_dir(count=60)}, run_id="smoke", limit=25, cutover="auto")
    assert outcome["state"] == "verified"
    assert outcome["targets"][0]["rows"] == 25
    assert PostgresStore(connection).names() == []
    with pytest.raises(VerificationRefused, match="smoke run"):
        cutover(run_id="smoke")


def test_an_empty_collection_is_a_valid_migration(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """0 rows are moved, verified as such, and switched; records that come later make a table that can hold them."""
    source = {"path": chroma_dir(count=0)}
    assert chroma_to_pgvector(chroma=source, run_id="r", cutover="auto")["state"] == "cut_over"
    assert rows_of(PostgresStore(connection), "docs") == {}
    chroma.connect(**source).write("docs", records_of(5))
    assert chroma_to_pgvector(chroma=source, run_id="later", cutover="auto")["targets"][0]["mode"] == "replace"
    assert len(rows_of(PostgresStore(connection), "docs")) == 5


def test_quarantined_rows_are_never_silently_green(
    connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path
) -> None:
    """A NUL stops the run with exit 3 and lies in the quarantine; accepting it by number lets it pass."""
    path = chroma_dir(count=20)
    chroma.connect(path=path).client.get_collection("docs").upsert(
        ids=["bad"], embeddings=[[1.0] * 8], documents=["a\0b"]
    )
    with pytest.raises(VerificationRefused, match=r"quarantined \(1 \('bad'\), required ≤ 0\)"):
        chroma_to_pgvector(chroma={"path": path}, run_id="r")
    outcome = status.outcome(connection, "r")
    assert (outcome.state, outcome.exit, outcome.targets[0].quarantined) == ("failed", 3, 1)
    assert list((tmp_path / "home/runs/r/quarantine").iterdir())
    assert chroma_to_pgvector(run_id="r", gates={"max_quarantined": 1})["exit"] == 0


def test_a_sync_leaves_what_others_wrote(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Rows that the application added or edited in the live table are counted, and left as they are."""
    source = {"path": chroma_dir(count=30)}
    chroma_to_pgvector(chroma=source, run_id="first", cutover="auto")
    connection.execute("INSERT INTO docs (id, document) VALUES ('theirs', 'new')")
    connection.execute("UPDATE docs SET document = 'edited' WHERE id = 'row-0000003'")
    chroma.connect(**source).delete("docs", ["row-0000004"])
    outcome = chroma_to_pgvector(chroma=source, run_id="second")
    assert outcome["state"] == "cut_over"
    assert outcome["targets"][0]["touched"] == {"inserted": 0, "updated": 0, "deleted": 1}
    kept = connection.execute(
        "SELECT id, document FROM docs WHERE id IN ('theirs', 'row-0000003') ORDER BY 1"
    ).fetchall()
    assert kept == [("row-0000003", "edited"), ("theirs", "new")]


def test_a_sync_does_not_empty_a_table(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """A source that lost most of its rows stops the sync before anything is touched, unless that is meant."""
    source = {"path": chroma_dir(count=40)}
    chroma_to_pgvector(chroma=source, run_id="first", cutover="auto")
    store = chroma.connect(**source)
    store.delete("docs", store.records("docs").ids().to_pylist()[:35])
    with pytest.raises(VerificationRefused, match="max_deleted"):
        chroma_to_pgvector(chroma=source, run_id="second")
    assert len(rows_of(PostgresStore(connection), "docs")) == 40
    chroma_to_pgvector(run_id="second", gates={"max_deleted": 1})
    assert len(rows_of(PostgresStore(connection), "docs")) == 5


def test_another_layout_steps_in_and_the_old_table_steps_aside(
    connection: Connection, chroma_dir: Callable[..., str]
) -> None:
    """halfvec over vector: the earlier table is kept, comes back on rollback, and goes with contract; grants follow."""
    source = {"path": chroma_dir(count=40)}
    chroma_to_pgvector(chroma=source, run_id="first", cutover="auto")
    role = f"app_{connection.info.dbname}"
    connection.execute(f"CREATE ROLE {role}")
    connection.execute(f"GRANT SELECT ON docs TO {role}")

    def kind() -> Any:
        row = connection.execute(
            "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'embedding'"
        ).fetchone()
        return row[0] if row else None

    outcome = chroma_to_pgvector(chroma=source, run_id="half", halfvec=True, cutover="auto")
    assert (outcome["targets"][0]["mode"], kind()) == ("replace", "halfvec")
    assert connection.execute("SELECT has_table_privilege(%s, 'docs', 'SELECT')", (role,)).fetchone() == (True,)
    rollback(run_id="half")
    assert kind() == "vector"
    cutover(run_id="half")
    assert kind() == "halfvec"
    assert contract(run_id="half", rollback_days=0)["done"] == [f"dropped vecferry.docs__prev_{_suffix(connection)}"]


def test_a_view_on_the_table_stops_the_switch(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """What would silently stay on the old table is named, and nothing is switched."""
    source = {"path": chroma_dir(count=20)}
    chroma_to_pgvector(chroma=source, run_id="first", cutover="auto")
    connection.execute("CREATE VIEW titles AS SELECT id FROM docs")
    with pytest.raises(VerificationRefused, match=r"view titles depends on public\.docs"):
        chroma_to_pgvector(chroma=source, run_id="half", halfvec=True, cutover="auto")


def test_equal_texts_are_embedded_once(
    connection: Connection, chroma_dir: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Re-embedding buys each text once, over batches, retries and runs; the vectors are the model's."""
    bought: list[str] = []
    real = HashingEmbedder.embed

    def embed(self: HashingEmbedder, items: Sequence[str], on_made: OnMade | None = None) -> Embedded:
        bought.extend(items)
        return real(self, items, on_made)

    monkeypatch.setattr(HashingEmbedder, "embed", embed)
    source = {"path": chroma_dir(count=60)}
    client = chroma.connect(**source).client.get_collection("docs")
    client.upsert(ids=["twin-1", "twin-2"], embeddings=[[1.0] * 8] * 2, documents=["the same text", "the same text"])
    options = {"chroma": source, "embedder": "hashing/16", "batch_rows": 10, "gates": {"sample": 1}}
    assert chroma_to_pgvector(**options, run_id="r", cutover="auto")["state"] == "cut_over"
    sampled = 1
    assert len(bought) == len(set(bought)) + sampled
    rollback(run_id="r")
    before = len(bought)
    chroma_to_pgvector(**options, run_id="again")
    assert len(bought) - before == sampled, "a second run bought texts again"
    cutover(run_id="again", gates={"sample": 1})
    batch = PostgresStore(connection).records("docs").fetch(["twin-1", "twin-2"])
    assert vectors(batch) == pytest.approx(real(HashingEmbedder(16), ["the same text"] * 2).whole, abs=1e-6)


def test_verify_sees_every_planted_fault(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """A row removed, changed, added, or holding another row's vector: each fails verification by name."""
    source = {"path": chroma_dir(count=60)}
    chroma_to_pgvector(chroma=source, run_id="r", cutover="auto")
    assert verify(run_id="r")["exit"] == 0
    faults = {
        "DELETE FROM docs WHERE id = 'row-0000007'": "missing",
        "UPDATE docs SET embedding = (SELECT embedding FROM docs WHERE id = 'row-0000008') WHERE id = 'row-0000007'": "content",
        "UPDATE docs SET id = 'orphan' WHERE id = 'row-0000007'": "extra",
    }
    for fault, check in faults.items():
        connection.execute("CREATE TABLE backup AS SELECT * FROM docs")
        connection.execute(fault)
        with pytest.raises(VerificationRefused, match=check):
            verify(run_id="r")
        connection.execute("DELETE FROM docs")
        connection.execute("INSERT INTO docs SELECT * FROM backup")
        connection.execute("DROP TABLE backup")
    assert verify(run_id="r")["exit"] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_it_resumes(
    connection: Connection, chroma_dir: Callable[..., str], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run says where it is full, keeps what it has, and goes on when there is room again."""
    monkeypatch.setenv("VECFERRY_HOME", str(small_disk / "home"))
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 950_000)
    path = chroma_dir(count=500, dimensions=64)
    with pytest.raises(FatalError, match="no space left"):
        chroma_to_pgvector(chroma={"path": path}, run_id="r", batch_rows=100)
    assert status.outcome(connection, "r").exit == 1
    filler.unlink()
    assert chroma_to_pgvector(run_id="r")["state"] == "verified"


def test_a_second_runner_is_refused(database: str, chroma_dir: Callable[..., str]) -> None:
    """While one process holds a run, another is told so."""
    path = chroma_dir()
    chroma_to_pgvector(chroma={"path": path}, run_id="r")
    with holding.sole_runner(database, "r"), pytest.raises(UsageError, match="another process is working on run r"):
        chroma_to_pgvector(run_id="r")


def _suffix(connection: Connection) -> str:
    from tasks.runs.names import suffix

    return suffix("half", "public.docs")


def test_contract_of_a_run_that_was_rolled_back(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Its table, which is kept for another cutover until then, is dropped; an earlier table stays what people use."""
    source = {"path": chroma_dir(count=5)}
    chroma_to_pgvector(chroma=source, run_id="back", cutover="auto")
    assert rollback(run_id="back")["state"] == "rolled_back"
    kept = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'docs%'"
    assert connection.execute(kept).fetchone() == (1,)
    assert contract(run_id="back")["state"] == "contracted"
    assert connection.execute(kept).fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM vecferry.relation").fetchone() == (0,)


def test_contract_waits_as_long_as_the_run_was_told(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """`rollback_days` given to the run holds for its contract, which may still be told otherwise."""
    source = {"path": chroma_dir(count=5)}
    chroma_to_pgvector(chroma=source, run_id="kept", cutover="auto", rollback_days=30)
    with pytest.raises(VerificationRefused, match="window of 30 days"):
        contract(run_id="kept")
    assert contract(run_id="kept", rollback_days=0)["state"] == "contracted"
