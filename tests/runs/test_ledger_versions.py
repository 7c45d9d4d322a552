"""Ledgers and plans of other versions, as the commands meet them: an older one is read as it is, a newer one refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.command import main
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import UsageError
from tasks.begin import begin
from tasks.runs import ledger_versions, locks
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers import old_ledger
from tests.helpers.command import command

FIXTURE = "ledger_before_versions"
WITHOUT_LEDGER = {"params", "demo", "embed", "ingest", "serve"}
"""Commands that ask no ledger of runs, or make one of their own."""
OF_RUN = ("status", "rerun", "cutover", "catch-up", "rollback", "contract", "verify", "restore", "search")
OF_FLOW = ("plan", "run", "snapshot")
RUN = "chroma-verified"
NEWER = 99


@pytest.fixture
def old(connection: Connection, database: str, tmp_path: Path) -> Connection:
    """The database of the code before versions, in place of an empty one."""
    connection.execute("DROP EXTENSION vector")
    old_ledger.restore(FIXTURE, database, tmp_path)
    return connection


def kept(connection: Connection) -> list[Any]:
    """What the ledger says of every run, and the relations it consists of."""
    runs = connection.execute("SELECT to_jsonb(run) FROM vecferry.run ORDER BY run_id").fetchall()
    names = connection.execute(
        "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'vecferry'::regnamespace ORDER BY relname"
    ).fetchall()
    return [*runs, *names]


def of_run(verb: str) -> list[str]:
    return [verb, "a text", "--run", RUN] if verb == "search" else [verb, RUN]


def of_flow(verb: str, tmp_path: Path) -> list[str]:
    """A new run where the ledger is asked at all."""
    named = ["--run-id", "fresh"] if verb != "plan" else []
    return [verb, "chroma-to-pgvector", "-p", f"chroma.path={tmp_path / 'chroma'}", *named]


def test_every_command_is_asked() -> None:
    """One that is added later is held against other versions too."""
    every = {c.name or getattr(c.callback, "__name__", "") for c in main.app.registered_commands}
    assert every - WITHOUT_LEDGER == {*OF_RUN, *OF_FLOW}


def test_what_only_reads_leaves_an_older_ledger(
    old: Connection, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """status shows every run, plan plans, and the ledger is what it was."""
    before = kept(old)
    ended = command(capsys, "status")
    assert ended.exit == 0, ended.err
    assert all(f"{kind}-{way}" in ended.out for kind, ways in old_ledger.KINDS[FIXTURE].items() for way in ways)
    shown = command(capsys, *of_run("status"), "--json")
    assert (shown.exit, shown.json["state"], shown.json["next"]) == (0, "verified", f"vecferry cutover {RUN}")
    assert command(capsys, *of_flow("plan", tmp_path), "-p", "collections=[chroma-planned]").exit == 0
    assert kept(old) == before


@pytest.mark.parametrize("table", ["column_verified", "side_table_verified"])
def test_a_new_run_is_planned_by_what_an_older_ledger_knows(
    old: Connection, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    """Vectors that belong to a run are not planned over, whether the ledger was brought forward before or not."""
    targets, kind = [{"table": table, "text": "content"}], table.removesuffix("_verified")
    asked = {"targets": targets, "layout": kind, "embedder": "hashing/16", "old_embedder": "hashing/8"}
    owned = f"belongs to run {kind}-verified"
    before = kept(old)
    planned = command(capsys, "plan", "text-384-to-1536", *(f"-p{k}={json.dumps(v)}" for k, v in asked.items()))
    assert planned.exit == 2
    assert owned in planned.out
    assert kept(old) == before
    request = parse(Text384To1536, asked).request()
    with pytest.raises(UsageError, match=owned):
        begin(request, "fresh", {"source"})
    assert kept(old) != before, "whoever begins brings it forward"


def test_a_run_of_an_older_program_stops_what_writes(
    old: Connection, database: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line that names the run and what to do, before anything is started, and nothing is done; status goes on."""
    before = kept(old)
    with connect(database) as program:
        program.execute("SELECT pg_advisory_lock(%s, hashtext('chroma-planned'))", (locks.RUNS,))
        verbs = [of_run(verb) for verb in OF_RUN if verb not in ("status", "restore", "rerun", "search")]
        flows = [of_flow(verb, tmp_path) for verb in ("run", "snapshot")]
        for arguments in (*verbs, ["rerun", RUN, "--batch", "0"], *flows):
            ended = command(capsys, *arguments)
            assert (ended.exit, ended.out) == (2, ""), (arguments, ended)
            assert "an older vecferry is working on run chroma-planned" in ended.complaint, arguments
        assert command(capsys, *of_run("status")).exit == 0
    assert kept(old) == before


def test_every_command_refuses_a_newer_ledger(
    old: Connection, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line that names its version, and nothing is done."""
    ledger_versions.bring_forward(old)
    old.execute("INSERT INTO vecferry.version (version, step, applied_by) VALUES (%s, 'later', '9.0.0')", (NEWER,))
    before = kept(old)
    for arguments in (["status"], *map(of_run, OF_RUN), *(of_flow(verb, tmp_path) for verb in OF_FLOW)):
        ended = command(capsys, *arguments)
        assert (ended.exit, ended.out) == (2, ""), (arguments, ended)
        assert f"has version {NEWER}" in ended.complaint, arguments
    assert kept(old) == before


def test_every_command_refuses_a_newer_plan(old: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the run and the version of its plan, and nothing is done."""
    ledger_versions.bring_forward(old)
    old.execute(
        "UPDATE vecferry.run SET plan = plan || jsonb_build_object('version', %s::int) WHERE run_id = %s", (NEWER, RUN)
    )
    before = kept(old)
    for arguments in (*map(of_run, OF_RUN), ["run", "chroma-to-pgvector", "--run-id", RUN]):
        ended = command(capsys, *arguments)
        assert (ended.exit, ended.out) == (2, ""), (arguments, ended)
        assert f"run {RUN} has a plan of version {NEWER}" in ended.complaint, arguments
    assert kept(old) == before


def test_a_plan_of_other_code_is_shown(old: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a field that this code does not know nor one that is missing and has a default is in the way."""
    for run_id in (RUN, "column-verified"):
        (plan,) = old.execute("SELECT plan FROM vecferry.run WHERE run_id = %s", (run_id,)).fetchone() or ({},)
        target = plan["targets"][0]
        for part in (plan, plan["request"], target, target["collection"], target.get("live", {})):
            part["of_tomorrow"] = {"a": 1}
        del plan["flow_run"], plan["request"]["nul"]
        old.execute("UPDATE vecferry.run SET plan = %s::text::jsonb WHERE run_id = %s", (json.dumps(plan), run_id))
        shown = command(capsys, "status", run_id, "--json")
        assert shown.exit == 0, shown.err
        assert shown.json["state"] == "verified"
