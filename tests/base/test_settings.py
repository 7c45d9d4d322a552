"""Which database is meant, and that it is said where that is not DATABASE_URL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from flows import ui
from flows.command.demos import docstrings, ground
from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.runs.database import database_url
from tests.helpers.servers import free_port

PASSWORD = "s3cret"


def vecferry(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """The command in a process of its own: (exit status, standard output, standard error)."""
    command = [sys.executable, "-c", "from flows.command.main import main; main()", *arguments]
    kept = {k: v for k, v in os.environ.items() if k not in (settings.DEFAULT_DATABASE, settings.OTHER_DATABASE)}
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def named(database: str) -> str:
    """The URL of an empty database, with a password that its server does not ask for."""
    return psycopg.conninfo.make_conninfo(database, password=PASSWORD)


@pytest.fixture
def ledger_of_another(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL is unset, and POSTGRES_URL names the database."""
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("POSTGRES_URL", database)


def test_postgres_url_is_used_and_named(named: str, tmp_path: Path) -> None:
    """With DATABASE_URL unset or empty the ledger is where POSTGRES_URL says; one line names it, without a password, and
    standard output holds the JSON alone."""
    for unset in ({}, {"DATABASE_URL": ""}):
        status, out, err = vecferry({"POSTGRES_URL": named, **unset}, "status", "--json")
        assert (status, json.loads(out)) == (0, [])
        assert err == "vecferry: DATABASE_URL is not set; using POSTGRES_URL\n"
    assert not (tmp_path / "home" / "postgres").exists(), "the embedded PostgreSQL was started"


def test_database_url_goes_first(named: str) -> None:
    """Where both are set, nothing is asked of POSTGRES_URL, and nothing is said."""
    nowhere = f"postgresql://me:{PASSWORD}@127.0.0.1:{free_port()}/app"
    assert vecferry({"DATABASE_URL": named, "POSTGRES_URL": nowhere}, "status", "--json") == (0, "[]\n", "")


def test_a_name_that_is_given_is_the_only_one(ledger_of_another: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """``database=NAME`` means that name: where it is not set, POSTGRES_URL does not stand in for it."""
    with pytest.raises(UsageError, match="called SEARCH_URL"):
        database_url("SEARCH_URL")
    monkeypatch.setenv("SEARCH_URL", "postgresql://somewhere/else")
    assert database_url("SEARCH_URL") == "postgresql://somewhere/else"


@pytest.mark.parametrize(
    ("environment", "named"),
    [({}, False), ({"DATABASE_URL": ""}, False), ({"POSTGRES_URL": "x"}, True), ({"DATABASE_URL": "x"}, True)],
)
def test_make_ui_starts_the_embedded_database_where_runs_go_to_it(
    environment: dict[str, str], named: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`make ui` holds the embedded PostgreSQL exactly where neither variable names a database; empty is unset."""
    for name in (settings.DEFAULT_DATABASE, settings.OTHER_DATABASE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.chdir(Path(__file__).parents[2])
    steps: list[str] = []

    def say(line: str) -> None:
        steps.append(line.split()[0])
        if steps[-1] == "Prefect":  # before a server is started: what goes before is looked at
            raise InterruptedError

    with pytest.raises(InterruptedError), ui.serving(free_port(), say):
        pass
    assert steps == (["Prefect"] if named else ["PostgreSQL", "Prefect"])


@pytest.mark.usefixtures("prefect")
def test_the_demo_keeps_out_of_a_database_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever variable is set, the demo goes into its own PostgreSQL, and the command it ends with looks there."""
    nowhere = f"postgresql://me:{PASSWORD}@127.0.0.1:{free_port()}/app"
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("POSTGRES_URL", nowhere)
    monkeypatch.setenv("VECFERRY_HOME", "unused")
    monkeypatch.setattr(
        docstrings, "everywhere", lambda: [({"module": "a", "name": "f", "line": n}, f"text {n}") for n in range(60)]
    )
    ground.play("chroma-to-pgvector", tmp_path / "demo")
    shown = capsys.readouterr().out
    assert "cut_over" in shown
    assert f"Look around: DATABASE_URL= POSTGRES_URL= VECFERRY_HOME={tmp_path}/demo/home vecferry status demo" in shown
