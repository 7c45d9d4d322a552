"""The backup alone: complete, checked, without a trace in what people use, and a migration goes on from it whatever was
written meanwhile."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector, snapshot_chroma_to_pgvector
from flows.command import main
from flows.restore import restore
from flows.rollback import rollback
from flows.text_384_to_1536 import snapshot_text_384_to_1536, text_384_to_1536
from tasks import snapshot
from tasks.base.errors import BatchesFailed, UsageError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.runs import checkpoints, ledger, status
from tasks.runs.run import open_run
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection
from tests.flows.test_chroma_to_pgvector import rows_of
from tests.helpers import live
from tests.helpers.data import records_of
from tests.helpers.lifecycle import tables
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.postgres_store import PostgresStore

pytestmark = pytest.mark.usefixtures("prefect")

TEXT: dict[str, Any] = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536", "batch_rows": 10}


def manifest(home: Path, run_id: str) -> dict[str, Any]:
    return dict(json.loads((home / "runs" / run_id / "snapshot" / "manifest.json").read_text()))


def next_of(connection: Connection, run_id: str) -> tuple[str, Any]:
    outcome = status.outcome(connection, run_id)
    return outcome.state, outcome.next


def test_a_snapshot_says_when_and_from_what_and_makes_nothing(
    connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path
) -> None:
    """The manifest has every row, its begin and end in UTC and the source's version; of tables there are the ledger's; the
    next command is the migration. Asked for again, it stays as it is."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    outcome = snapshot_chroma_to_pgvector(chroma={"path": chroma_dir(count=50)}, run_id="docs", batch_rows=20)
    text = manifest(tmp_path / "home", "docs")
    assert text["rows"] == 50
    begin, end = (datetime.fromisoformat(text[name]) for name in ("begin", "end"))
    assert before < begin <= end < datetime.now(UTC) + timedelta(seconds=2)
    assert begin.utcoffset() == end.utcoffset() == timedelta(0)
    assert text["source_version"] == {"read by chromadb": chroma.chromadb.__version__}
    assert [name for name in tables(connection) if not name.startswith("vecferry.")] == []
    assert connection.execute("SELECT count(*) FROM vecferry.relation").fetchone() == (0,)
    assert next_of(connection, "docs") == ("planned", "vecferry run chroma-to-pgvector --run-id docs")
    assert outcome["snapshot"]["rows"] == {"docs": 50}
    assert outcome["snapshot"]["path"] == str(tmp_path / "home" / "runs" / "docs" / "snapshot")

    shutil.rmtree(tmp_path / "chroma")
    snapshot_chroma_to_pgvector(run_id="docs")
    assert manifest(tmp_path / "home", "docs") == text


def test_the_migration_goes_on_from_it(connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path) -> None:
    """What the source got, changed and lost after the snapshot is in the tables that the run makes of it, and in the manifest
    what it got."""
    source = {"path": chroma_dir(count=50)}
    snapshot_chroma_to_pgvector(chroma=source, run_id="docs", batch_rows=20)
    first = manifest(tmp_path / "home", "docs")
    store = chroma.connect(**source)
    store.write("docs", records_of(3, start=500))
    store.write("docs", records_of(2, start=10, seed=3))
    store.delete("docs", ["row-0000001"])

    assert chroma_to_pgvector(run_id="docs", cutover="auto")["state"] == "cut_over"
    assert rows_of(PostgresStore(connection), "docs") == rows_of(store, "docs")
    later = manifest(tmp_path / "home", "docs")
    assert later["rows"] == 53
    assert later["parts"][: len(first["parts"])] == first["parts"]
    assert later["begin"] == first["begin"]
    assert later["end"] > first["end"]


def test_the_command_exits_with_0_and_says_how_to_go_on(
    database: str,
    chroma_dir: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``vecferry snapshot`` with the parameters of run: one JSON object, or rows, versions, place and the next command."""
    path = chroma_dir(count=50)

    def vecferry(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["vecferry", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main.main()
        return int(exit_.value.code or 0), capsys.readouterr().out

    asked = ("snapshot", "chroma-to-pgvector", "-p", f"chroma.path={path}", "--run-id", "docs")
    code, out = vecferry(*asked, "--json")
    printed = json.loads(out)
    assert (code, printed["exit"], printed["state"]) == (0, 0, "planned")
    assert printed["snapshot"] == f"{tmp_path}/home/runs/docs/snapshot"
    code, out = vecferry(*asked)
    assert code == 0
    assert "docs: 50 records\n" in out
    assert f"backup  {tmp_path}/home/runs/docs/snapshot\n" in out
    assert "next    vecferry run chroma-to-pgvector --run-id docs\n" in out
    assert vecferry("snapshot", "chroma-to-pgvector", "--run-id", "nobody")[0] == 2


def test_a_table_of_ours_is_backed_up_whole(
    connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path
) -> None:
    """A collection whose table a later run only syncs is in the snapshot all the same, and can be restored from it; the run
    that goes on from it merges the difference."""
    source = {"path": chroma_dir(count=30)}
    chroma_to_pgvector(chroma=source, run_id="first", cutover="auto")
    store = chroma.connect(**source)
    store.write("docs", records_of(3, start=500))
    snapshot_chroma_to_pgvector(chroma=source, run_id="backup")
    assert manifest(tmp_path / "home", "backup")["rows"] == 33
    restore(run_id="backup", into=str(tmp_path / "restored"))
    assert rows_of(chroma.connect(path=str(tmp_path / "restored")), "docs") == rows_of(store, "docs")

    outcome = chroma_to_pgvector(run_id="backup")
    assert (outcome["state"], outcome["targets"][0]["touched"]["inserted"]) == ("cut_over", 3)
    assert rows_of(PostgresStore(connection), "docs") == rows_of(store, "docs")
    chroma_to_pgvector(chroma=source, run_id="sync")
    with pytest.raises(UsageError, match="sync is cut over and has no snapshot of all its tables"):
        snapshot_chroma_to_pgvector(run_id="sync")


def test_a_failed_batch_is_tried_again_by_the_same_command(
    connection: Connection, chroma_server: int, tmp_path: Path
) -> None:
    """The others are kept; the message and ``status`` name the snapshot, not the migration, until it is complete."""
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(60))
    second = "vecferry snapshot chroma-to-pgvector --run-id docs"
    in_the_way = tmp_path / "home" / "runs" / "docs" / "snapshot" / "000-docs" / "part-00001.parquet"
    in_the_way.mkdir(parents=True)
    source = {"host": "127.0.0.1", "port": chroma_server}
    with pytest.raises(BatchesFailed, match=f"Rerun it: {second}"):
        snapshot_chroma_to_pgvector(chroma=source, run_id="docs", batch_rows=20)
    assert next_of(connection, "docs") == ("failed", second)
    assert not (tmp_path / "home" / "runs" / "docs" / "snapshot" / "manifest.json").exists()
    in_the_way.rmdir()
    assert snapshot_chroma_to_pgvector(run_id="docs")["state"] == "planned"
    assert manifest(tmp_path / "home", "docs")["rows"] == 60
    assert set(manifest(tmp_path / "home", "docs")["source_version"]) == {"chroma server API", "read by chromadb"}
    assert [b.attempts for b in checkpoints.batches(connection, "docs", "snapshot")] == [1, 2, 1]


@pytest.mark.parametrize("command", [snapshot_chroma_to_pgvector, chroma_to_pgvector])
def test_a_killed_snapshot_is_taken_up_by_either_command(
    connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path, command: Any
) -> None:
    """Killed between its parts, with one collection not yet listed: the same command completes it, and so does the migration."""
    path = chroma_dir("docs", count=50)
    chroma_dir("more", count=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "_list_target", _only_the_first(snapshot._list_target))
        with pytest.raises(KeyboardInterrupt):
            snapshot_chroma_to_pgvector(chroma={"path": path}, run_id="two", batch_rows=20)
    run = open_run("two", DEFAULT_DATABASE)
    checkpoints.request_stop(connection, "two", None)
    snapshot.snapshot(run, [0])
    ledger.set_state(connection, "two", "running")
    ledger.set_doing(connection, "two", "snapshot")
    assert next_of(connection, "two") == ("running", "vecferry snapshot chroma-to-pgvector --run-id two")

    ended = command(run_id="two")
    assert ended["state"] == ("planned" if command is snapshot_chroma_to_pgvector else "verified")
    assert manifest(tmp_path / "home", "two")["rows"] == 80
    assert next_of(connection, "two")[1] != "vecferry snapshot chroma-to-pgvector --run-id two"


def _only_the_first(list_target: Any) -> Any:
    def stops(run: Any, source: Any, target: Any, listing: int, alone: bool) -> Any:
        if target.number:
            raise KeyboardInterrupt
        return list_target(run, source, target, listing, alone)

    return stops


def described(connection: Connection) -> list[Any]:
    """All that the catalogue knows of the schema public: columns, triggers, indexes, functions."""
    return connection.execute(
        "SELECT 'column', attrelid::regclass::text, attname::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
        "WHERE relnamespace = 'public'::regnamespace AND NOT attisdropped UNION ALL "
        "SELECT 'trigger', tgrelid::regclass::text, tgname::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid "
        "WHERE relnamespace = 'public'::regnamespace UNION ALL "
        "SELECT 'function', pronamespace::regnamespace::text, proname::text FROM pg_proc "
        "WHERE pronamespace = 'public'::regnamespace ORDER BY 1, 2, 3"
    ).fetchall()


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_a_live_table_is_not_touched_and_nothing_written_meanwhile_is_missed(
    connection: Connection, tmp_path: Path, layout: str
) -> None:
    """The snapshot leaves the table without a column or trigger. Rows inserted, changed, emptied, deleted and renamed before
    the run goes on have the vectors of what they say in the end."""
    live.make_table(connection, 60)
    before = described(connection)
    assert snapshot_text_384_to_1536(**TEXT, layout=layout, run_id="docs")["state"] == "planned"
    assert described(connection) == before
    text = manifest(tmp_path / "home", "docs")
    assert text["rows"] == 60
    assert set(text["source_version"]) == {"postgresql", "pgvector"}

    connection.execute("INSERT INTO docs (id, content) SELECT n, 'new ' || n FROM generate_series(1000, 1025) AS n")
    connection.execute("UPDATE docs SET content = 'changed' WHERE id = 7")
    connection.execute("UPDATE docs SET content = NULL WHERE id = 8")
    connection.execute("UPDATE docs SET id = 2000 WHERE id = 9")
    connection.execute("DELETE FROM docs WHERE id = 10")
    assert text_384_to_1536(run_id="docs")["state"] == "verified"
    assert live.faults(connection) == []
    assert manifest(tmp_path / "home", "docs")["rows"] == 60 + 26 + 1


def test_a_backup_needs_no_model_that_answers(connection: Connection, provider: OpenAIServer) -> None:
    """A key that is refused stops the migration, and not the snapshot, which asks no model."""
    live.make_table(connection, 10)
    provider.plant(status=401, code="invalid_api_key")
    outcome = snapshot_text_384_to_1536(targets=TEXT["targets"], run_id="docs")
    assert outcome["state"] == "planned"
    assert provider.calls == []


def test_a_rollback_drops_nothing_that_the_run_did_not_make(connection: Connection) -> None:
    """A column and a function of the names that the migration would have used are the user's, made after the snapshot: they
    stay."""
    live.make_table(connection, 10)
    snapshot_text_384_to_1536(**TEXT, run_id="docs")
    connection.execute("ALTER TABLE docs ADD COLUMN embedding_1536 text DEFAULT 'mine'")
    connection.execute("CREATE FUNCTION match_docs_v2(n int) RETURNS int LANGUAGE sql AS 'SELECT n'")
    before = described(connection)
    assert rollback(run_id="docs")["state"] == "rolled_back"
    assert described(connection) == before
    assert connection.execute("SELECT count(embedding_1536) FROM docs").fetchone() == (10,)
