"""Runs of two ledgers: each is found where no database is named, and every command that is told can be typed as it stands."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click import Context
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows.command import completion
from flows.command.main import app
from tasks.base import prefect_api
from tasks.base.errors import UsageError
from tasks.runs import ledgers
from tasks.runs.commands import command as told, overview
from tasks.runs.database import database_url
from tasks.stores.memory import MemoryStore
from tasks.stores.postgres import embedded, named
from tasks.stores.postgres.named import is_meant, ledger_databases
from tests.helpers.command import command
from tests.helpers.memory_target import memory_target, migrate_memory
from tests.shadows.test_memory_target import a_store, say

__all__ = ["memory_target"]
Capture = pytest.CaptureFixture[str]
OWN, OTHER = "VECFERRY_DATABASE_URL", "DATABASE_URL"
NOWHERE = "postgresql://127.0.0.1:1/nowhere"
whole_runs = pytest.mark.usefixtures("prefect", "memory_target", "ledger_database")


@pytest.fixture
def store() -> Iterator[tuple[str, MemoryStore]]:
    with a_store() as kept:
        yield kept


@whole_runs
def test_every_verb_finds_a_run_of_the_other_ledger(
    store: tuple[str, MemoryStore], capsys: Capture, tmp_path: Path
) -> None:
    """None is told the database; what each prints as next names it, and is typed as it stands."""
    name, kept = store
    step = command(capsys, "run", "memory", "-p", f"where={name}", "--run-id", "r", "--json").json
    assert (step["database"], step["next"]) == (OWN, f"vecferry cutover r -p database={OWN}")
    for typed, state in (
        (shlex.split(step["next"])[1:], "cut_over"),
        (["verify", "r"], "cut_over"),
        (["catch-up", "r"], "cut_over"),
        (["rollback", "r"], "rolled_back"),
        (["cutover", "r"], "cut_over"),
        (["contract", "r", "-p", "rollback_days=0"], "contracted"),
    ):
        ended = command(capsys, *typed, "--json")
        assert ended.exit == 0, (typed, ended.err)
        assert ended.json["state"] == state
    shown = command(capsys, "status", "r")
    assert f"memory, memory {name}, ledger in {OWN}\n" in shown.out
    assert f"\n{name}:docs_live: vector size 64, 60 rows\n" in shown.out
    written = command(capsys, "restore", "r", "--format", "jsonl", "--into", str(tmp_path / "back"), "--json")
    assert written.exit == 0, written.err
    assert written.json["restored"] == {"docs": len(kept.rows["docs"])}
    assert f"\n{name}:docs_live: vector size 64, 60 rows\n" in command(capsys, "verify", "r").out
    refused = command(capsys, "rerun", "r")
    assert (refused.exit, refused.complaint) == (2, "run r has no failed batches; it is contracted")


@whole_runs
def test_a_failed_batch_is_rerun_where_its_run_is(store: tuple[str, MemoryStore], capsys: Capture) -> None:
    """`rerun` alone finds the run, and goes on in its ledger, although the flow's own default is the other; so does `next`."""
    name, kept = store
    kept.rows["docs"]["row 3"]["document"] = 5  # no text: its batch fails
    asked = ("-p", f"where={name}", "-p", "batch_rows=20", "-p", f"database={OTHER}", "--run-id", "r", "--json")
    failed = command(capsys, "run", "memory", *asked)
    assert failed.exit == 1
    assert command(capsys, "status", "r", "--json").json["next"] == f"vecferry rerun r -p database={OTHER}"
    say(kept, {"row 3": "mended"})
    ended = command(capsys, "rerun", "r", "--json")
    assert ended.exit == 0, ended.err
    assert (ended.json["state"], ended.json["database"]) == ("verified", OTHER)
    assert ended.json["next"] == f"vecferry cutover r -p database={OTHER}"


@whole_runs
def test_runs_of_both_are_told_apart(
    store: tuple[str, MemoryStore], capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run id that both have is refused until a database is named; `status` lists the two, each with its own next step; and a new
    run does not take the name that the other ledger has."""
    name, _ = store
    migrate_memory(where=name, run_id="r")
    taken = command(capsys, "run", "memory", "-p", f"where={name}", "-p", f"database={OTHER}", "--run-id", "r")
    assert taken.exit == 2
    assert (
        taken.complaint
        == f"{OWN} has a run 'r' already, and its files would lie in the same folder: choose another run_id"
    )
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(OWN, NOWHERE)
        elsewhere.setenv("VECFERRY_HOME", str(tmp_path / "elsewhere"))
        migrate_memory(where=name, run_id="r", database=OTHER)
    for verb in ("status", "cutover", "rollback", "contract", "catch-up", "verify", "restore", "rerun"):
        refused = command(capsys, verb, "r")
        assert refused.exit == 2
        assert refused.complaint == (
            f"there is a run 'r' in {OTHER} and {OWN}: say which is meant, -p database={OTHER} or -p database={OWN}"
        )
    listed = command(capsys, "status")
    assert [line.split(", ")[-1] for line in listed.out.splitlines() if "ledger in" in line] == [
        f"ledger in {OTHER}",
        f"ledger in {OWN}",
    ]
    both = command(capsys, "status", "--json").json
    assert [one["database"] for one in both] == [OTHER, OWN]  # type: ignore[index]
    for one in both:
        looked_at = command(capsys, *shlex.split(one["next"])[1:], "-p", "gates.sample=1000000")  # type: ignore[index]
        assert "gates.sample" in looked_at.complaint, "the run was not looked for"
    assert command(capsys, "status", "r", "-p", f"database={OWN}", "--json").json["database"] == OWN


@whole_runs
def test_a_ledger_that_cannot_be_read_hides_no_other(
    store: tuple[str, MemoryStore], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is found, the list says what is not in it, and of a run that is nowhere it is said which ledger was not asked."""
    migrate_memory(where=store[0], run_id="r")
    monkeypatch.setenv(OTHER, NOWHERE)
    assert command(capsys, "status", "r", "--json").json["run_id"] == "r"
    listed = command(capsys, "status", "--json")
    assert [one["run_id"] for one in listed.json] == ["r"]  # type: ignore[index]
    assert listed.complaint.startswith(f"the runs of {OTHER} are not shown: cannot connect to PostgreSQL: ")
    refused = command(capsys, "status", "s").complaint
    assert refused.startswith(f"there is no run 's' in {OWN}; {OWN} has r; {OTHER} was not looked at: cannot connect")


@whole_runs
def test_completion_knows_the_runs_of_both(
    store: tuple[str, MemoryStore], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Of the one that is named only those."""
    migrate_memory(where=store[0], run_id="own")
    migrate_memory(where=store[0], run_id="other", database=OTHER)
    assert completed() == ["other", "own"]
    assert completed(f"database={OWN}") == ["own"]


def completed(*given: str) -> list[str]:
    line: Any = Context(typer.main.get_command(app))
    line.params = {"p": list(given)}
    return completion.runs(line, "o")


def test_one_database_is_one_ledger(database: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Unset, or leading to the same, whatever the spelling: nothing is asked twice, and no message names a database."""
    assert ledger_databases() == [OTHER]
    assert command(capsys, "status", "s").complaint == "there is no run 's' in this database; it has no runs yet"
    for same in (database, make_conninfo(database, application_name="ours")):
        monkeypatch.setenv(OWN, same)
        assert ledger_databases() == [OTHER]
        assert [told("status", "r", name) for name in (OTHER, OWN)] == ["vecferry status r"] * 2
    unread: dict[str, str] = {}
    monkeypatch.setenv(OWN, make_conninfo(database, host=f"{conninfo_to_dict(database)['host']}/"))
    assert ledger_databases() == [OTHER, OWN], "spelt as if it were another"
    assert [reading.database for reading in ledgers.readable(unread)] == [OTHER]
    assert unread == {}


def test_an_embedded_database_is_asked_where_it_has_been_made(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    """With DATABASE_URL alone nobody starts one; once there is one, its ledger is the second."""
    assert command(capsys, "status").exit == 0
    assert not Path(embedded.directory_of(str(tmp_path / "home"))).exists()
    assert is_meant(OTHER)
    assert not is_meant(OWN)
    Path(embedded.directory_of(str(tmp_path / "home"))).mkdir(parents=True)
    assert ledger_databases() == [OTHER, OWN]
    assert told("cutover", "r", OTHER) == f"vecferry cutover r -p database={OTHER}"
    monkeypatch.delenv(OTHER)
    assert ledger_databases() == [OTHER], "both are the embedded one"
    assert told("cutover", "r", OWN) == "vecferry cutover r"
    monkeypatch.setenv(OWN, database)
    assert ledger_databases() == [OTHER, OWN]
    assert database_url(OWN) == database


@pytest.mark.usefixtures("prefect", "memory_target", "database")
def test_unset_it_is_the_embedded_one(store: tuple[str, MemoryStore], capsys: Capture) -> None:
    """It is started for the run, found again beside the database that DATABASE_URL names, and named in every command."""
    try:
        begun = command(capsys, "run", "memory", "-p", f"where={store[0]}", "--run-id", "r", "--json")
        assert begun.exit == 0, begun.err
        embedded.stop()
        assert f", ledger in {OWN}\n" in command(capsys, "status").out
        assert command(capsys, *shlex.split(begun.json["next"])[1:], "--json").json["state"] == "cut_over"
        assert begun.json["next"] == f"vecferry cutover r -p database={OWN}"
    finally:
        embedded.stop()


def test_a_secret_block_names_a_ledger(prefect_url: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DATABASE_URL is not in the environment either; where it is, nobody asks Prefect. A message survives a Prefect that has
    gone: it names the database."""
    Secret(value=database).save("vecferry-database-url", overwrite=True)
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    named._block.cache_clear()  # another test of this process may have asked before there was one
    try:
        assert ledger_databases() == [OTHER]
        monkeypatch.delenv(OTHER)
        assert ledger_databases() == [OWN], "no embedded one has been made"
        assert database_url(OWN) == database
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
        prefect_api.require.cache_clear()
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
            assert told("cutover", "r", OWN) == f"vecferry cutover r -p database={OWN}"
    finally:
        Secret.delete("vecferry-database-url")
        named._block.cache_clear()
        prefect_api.require.cache_clear()


def test_the_overview_needs_no_name(ledger_database: str) -> None:
    """`vecferry status` shows the runs of both ledgers; one of a third name is asked for by it."""
    assert [overview(name) for name in (OTHER, OWN, "SEARCH_URL")] == [
        "vecferry status",
        "vecferry status",
        "vecferry status -p database=SEARCH_URL",
    ]


def test_who_is_nowhere_is_told_with_what_there_is(ledger_database: str) -> None:
    """Both ledgers are named, with the latest runs of each."""
    with pytest.raises(
        UsageError, match=f"^there is no run 'x' in {OTHER} or {OWN}; {OTHER} has no runs yet; {OWN} has no"
    ):
        ledgers.having("x")
