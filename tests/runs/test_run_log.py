"""The log of a run: whole lines of what the ledger knows, and no secret and no text of a row in it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.cutover import cutover
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from tasks.base.error_messages import safe
from tasks.base.errors import BatchesFailed, FatalError, Stopped, TransientError, VecferryError
from tasks.runs import checkpoints, run_log, status
from tasks.stores.postgres.connection import Connection, classified
from tests.helpers import live
from tests.helpers.openai_server import OpenAIServer

KEYS = ["time", "stage", "batch", "rows", "seconds", "error", "message"]
SECRET = "the patient's diagnosis"


def lines(home: Path, run_id: str) -> list[dict[str, Any]]:
    """The log, each line a whole object of the same keys, in the order of its times."""
    data = [json.loads(line) for line in (home / "logs" / f"{run_id}.jsonl").read_text().splitlines()]
    assert all(list(line) == KEYS for line in data)
    assert all(datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0 for line in data)  # type: ignore[union-attr]
    return data


@pytest.mark.usefixtures("prefect")
def test_every_stage_and_batch_of_a_run_has_a_line(
    connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path
) -> None:
    """From its beginning to its rollback: each batch of the ledger with its rows, each stage, and how the run ended."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=50)}, run_id="docs", batch_rows=10)
    cutover(run_id="docs")
    rollback(run_id="docs")
    result = lines(tmp_path / "home", "docs")
    for stage in ("snapshot", "load"):
        logged = sorted((line["batch"], line["rows"]) for line in result if line["stage"] == stage)
        assert logged == [(b.number, b.rows) for b in checkpoints.batches(connection, "docs", stage)]
        assert len(logged) == 5
    assert [
        line["stage"] for line in result if line["stage"] not in ("snapshot", "load", "list", "catch_up", "index")
    ] == [
        *("begin", "expand", "manifest", "key", "verify", "end"),
        *("verify", "cutover", "end"),
        "rollback",
    ]
    assert [line["error"] for line in result if line["error"]] == []
    assert [line["rows"] for line in result if line["stage"] == "verify"] == [50, 50]
    assert all(line["seconds"] > 0 for line in result if line["stage"] != "begin")
    assert status.outcome(connection, "docs").log == str(tmp_path / "home" / "logs" / "docs.jsonl")


@pytest.mark.usefixtures("prefect")
def test_a_failure_is_logged_with_its_class_and_without_the_row(connection: Connection, tmp_path: Path) -> None:
    """What PostgreSQL says of a row, in its message, detail or a trigger's own words, stays out of the log; which batch, which
    class and which SQLSTATE do not."""
    live.make_table(connection, 30)
    connection.execute("UPDATE docs SET content = %s WHERE id = 7", (SECRET,))
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no: %', NEW.content USING DETAIL = NEW.content, HINT = NEW.content; END $$"
    )
    connection.execute(
        "CREATE TRIGGER frozen BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(BatchesFailed):
        text_384_to_1536(
            targets=[{"table": "docs", "text": "content"}], embedder="hashing/1536", run_id="docs", batch_rows=10
        )
    failed = [line for line in lines(tmp_path / "home", "docs") if line["error"]]
    assert [(line["stage"], line["batch"], line["error"]) for line in failed] == [
        ("load", 0, "WriteRefused"),
        ("end", None, "BatchesFailed"),
    ]
    assert failed[0]["message"] == "public.docs: RaiseException: SQLSTATE P0001"
    assert failed[1]["message"] == "batch 0 failed"
    assert SECRET not in (tmp_path / "home" / "logs" / "docs.jsonl").read_text()
    assert SECRET in str(status.failures(connection, "docs")[0].error), "the ledger has what was said"


@pytest.mark.usefixtures("prefect")
def test_what_a_provider_says_of_a_text_is_not_logged(
    connection: Connection, provider: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal that repeats the key and the text is logged as its class, status and code."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    live.make_table(connection, 10)
    connection.execute("UPDATE docs SET content = %s WHERE id = 7", (SECRET,))
    message = f"Incorrect API key provided: sk-secret-of-mine, for {SECRET}"
    provider.plant(status=401, code="invalid_api_key", message=message, text=SECRET)
    with pytest.raises(VecferryError):
        text_384_to_1536(targets=[{"table": "docs", "text": "content"}], run_id="docs")
    failed = [line for line in lines(tmp_path / "home", "docs") if line["error"]]
    assert {(line["stage"], line["error"]) for line in failed} >= {("load", "FatalError"), ("end", "FatalError")}
    assert failed[0]["message"] == f"text-embedding-3-small at {provider.base_url}: 401 invalid_api_key"
    text = (tmp_path / "home" / "logs" / "docs.jsonl").read_text()
    assert "sk-secret" not in text
    assert "patient" not in text


def _raised(connection: Connection, query: str, *values: object) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(query, values)  # type: ignore[arg-type]
    return caught.value


def test_the_messages_of_postgresql_lose_what_was_in_the_row(connection: Connection) -> None:
    """Values in a message, a violated constraint and a failing row leave the SQLSTATE and the names; what is about the server
    keeps its words."""
    connection.execute("CREATE TABLE t (id text PRIMARY KEY, n int NOT NULL CHECK (n > 0), d json)")
    connection.execute("INSERT INTO t VALUES (%s, 1)", (SECRET,))
    messages = [
        safe(_raised(connection, query, SECRET))
        for query in (
            "SELECT %s::text::int",
            "INSERT INTO t VALUES ('x', 1, %s::text::json)",
            "INSERT INTO t VALUES (%s, 1)",
            "INSERT INTO t VALUES (%s || '2', 0)",
            "INSERT INTO t VALUES (%s || '2', NULL)",
            "SELECT setting FROM pg_settings WHERE name = %s AND no_such",
        )
    ]
    assert messages == [
        "SQLSTATE 22P02",
        "SQLSTATE 22P02",
        "SQLSTATE 23505, table public.t, constraint t_pkey",
        "SQLSTATE 23514, table public.t, constraint t_n_check",
        "SQLSTATE 23502, table public.t, column n",
        "SQLSTATE 42703, column '…' does not exist",
    ]


def test_a_wrapped_message_keeps_what_is_ours(connection: Connection) -> None:
    """Of an error of ours around one of somebody else's the first part is kept, and the class and nature of the other."""
    with pytest.raises(FatalError) as caught, classified("batch 3 (load)"):
        connection.execute("SELECT * FROM nowhere")
    assert safe(caught.value) == "batch 3 (load): UndefinedTable: SQLSTATE 42P01, relation '…' does not exist"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            FatalError(f"model at http://h:8/v1: 401 invalid_api_key no {SECRET}"),
            "model at http://h:8/v1: 401 invalid_api_key",
        ),
        (TransientError(f"Chroma at http://h:8000: 503: {SECRET}"), "Chroma at http://h:8000: 503"),
        (
            FatalError(f"verification failed: docs: missing (1 ({SECRET!r}), required 0)"),
            "verification failed: docs: missing (1 ('…'), required 0)",
        ),
        (FatalError(f"first line\n{SECRET}"), "first line"),
        (FatalError("postgresql://me:hidden@h/db is away"), "postgresql://…@h/db is away"),
        (BatchesFailed(f"2 batches failed: 2, 5 ({SECRET})", [2, 5]), "batches 2, 5 failed"),
        (Stopped(SECRET), "the run was asked to stop"),
        (OSError(28, "No space left on device", SECRET), "No space left on device"),
        (ValueError(SECRET), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_other_messages_lose_what_others_said(error: BaseException, message: str | None) -> None:
    """Quoted names, a server's words after its status, and messages of unknown errors are cut."""
    assert safe(error) == message


def test_an_unknown_error_says_where_it_came_from() -> None:
    """In place of its message: the last line of our code that it came through."""
    with pytest.raises(AttributeError) as caught:
        checkpoints.check_stop(None, SECRET)  # type: ignore[arg-type]
    place = safe(caught.value)
    assert place
    assert place.startswith("at tasks/runs/checkpoints.py:")


def test_lines_of_many_processes_stay_whole(tmp_path: Path) -> None:
    """Processes that write at once never mix their lines."""
    script = "from tasks.runs import run_log\nfor n in range(200): run_log.note('many', 'load', n, rows=n)"
    environment = {**os.environ, "VECFERRY_HOME": str(tmp_path / "home")}
    started = [subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    result = lines(tmp_path / "home", "many")
    assert sorted(line["batch"] for line in result) == sorted([*range(200)] * 3)


def test_an_object_store_gets_an_object_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot append: lines of batches are gathered, and the end of a stage writes them all."""
    monkeypatch.setenv("VECFERRY_HOME", "memory://bucket/home")
    monkeypatch.setattr(run_log, "FLUSH", 60.0)
    store = fsspec.filesystem("memory")

    def kept() -> list[int]:
        (name,) = store.ls("/bucket/home/logs/far", detail=False)
        return [json.loads(line)["batch"] for line in store.cat_file(name).splitlines()]

    run_log.note("far", "begin")
    for number in range(3):
        run_log.note("far", "load", number)
    assert kept() == [
        None,
    ], "batches wait"
    run_log.note("far", "load", 3, error=ValueError("x"))
    assert kept() == [None, 0, 1, 2, 3]
    assert run_log.there("far", "memory://bucket/home") == "memory://bucket/home/logs/far"


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands where the folder should be: the work goes on, and a warning says so."""
    (tmp_path / "logs").touch()
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path))
    with run_log.stage("docs", "index"):
        pass
    assert "the log of run docs was not written" in caplog.text
    assert run_log.there("docs", str(tmp_path)) is None
