"""Ctrl-C on a real terminal, where every process of the foreground gets it: whatever the command is in the middle of."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from psycopg import sql

from flows.command import interrupt
from tasks.runs import checkpoints, ledger
from tasks.runs.checkpoints import Batch
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection
from tests.helpers.data import records_of
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.sampling import sampled
from tests.helpers.terminal import COMMAND, Terminal, terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

SECONDS = 3.0
"""How long a command may take to end after Ctrl-C, where it has a processor to itself."""
RUN = "stopped"
MODEL = "openai/text-embedding-3-small"


@pytest.fixture
def api(prefect_url: str) -> str:
    """A Prefect server of the user's own: what comes before it is tested by itself."""
    return prefect_url


@dataclass(frozen=True)
class Place:
    """A run with a database and a home of its own."""

    connection: Connection
    chroma: str
    home: Path

    def command(self, *options: str) -> list[str]:
        parameters = [f"chroma.path={self.chroma}", *options]
        return ["run", "chroma-to-pgvector", "--run-id", RUN, *(word for o in parameters for word in ("-p", o))]

    def stage(self, stage: str) -> list[Batch[Any]]:
        return checkpoints.batches(self.connection, RUN, stage) if ledger.find(self.connection, RUN) else []

    def wait_until(self, condition: Callable[[], object], shown: Terminal) -> None:
        until = time.monotonic() + 100
        while not condition():
            assert shown.process.poll() is None, shown.shown
            assert time.monotonic() < until, shown.shown
            time.sleep(0.02)


@pytest.fixture
def place(connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path) -> Place:
    return Place(connection, chroma_dir(count=200), tmp_path / "home")


def patience() -> float:
    """``SECONDS``, and as much longer as more processes than processors want to run."""
    return SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def interrupted(shown: Terminal, times: int = 1) -> str:
    """Presses Ctrl-C and returns the one line that is said; nothing is left of the command."""
    before, at = len(shown.shown), time.monotonic()
    for _ in range(times):
        shown.type("\x03")
        time.sleep(0.05)
    assert shown.ended() == 1, shown.shown
    took = time.monotonic() - at
    assert took <= patience(), (took, shown.shown)
    after = re.sub(r"[^\n]*\r\x1b\[2K", "", shown.shown[before:])  # a line that was wiped
    after = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", after)
    lines = [line.strip() for line in after.replace("\r", "\n").split("\n") if "━" not in line]
    text = [line for line in lines if line and line not in ("^C", "^C^C")]
    assert len(text) == 1, shown.shown
    assert text[0].startswith("vecferry: interrupted"), shown.shown
    assert "Traceback" not in shown.shown
    assert shown.left() == []
    return text[0]


def recorded(place: Place, line: str) -> None:
    """The ledger knows of the interruption, the line names the next command, and no connection of ours is left."""
    assert f"vecferry run chroma-to-pgvector --run-id {RUN}" in line
    record = ledger.get(place.connection, RUN)
    assert (record.state, record.error, record.exit_status) == ("failed", "interrupted", 1)
    assert [b.error for b in checkpoints.batches(place.connection, RUN) if b.error] == []
    until = time.monotonic() + 30
    while left := place.connection.execute(
        "SELECT application_name, query FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'vecferry%' AND pid <> pg_backend_pid()"
    ).fetchall():
        assert time.monotonic() < until, left
        time.sleep(0.1)


@pytest.mark.parametrize(
    "library",
    sampled(("pydantic_core", "psycopg_binary", "pyarrow"), "pydantic_core"),
)
def test_while_it_is_imported(place: Place, library: str) -> None:
    """A moment after it was called, whatever is imported then."""
    with terminal(*place.command()) as shown:
        place.wait_until(lambda: library in Path(f"/proc/{shown.process.pid}/maps").read_text(), shown)
        assert "nothing was changed" in interrupted(shown)


def test_while_prefect_starts(place: Place) -> None:
    """Nothing is done yet, so the same command is named; the server that was coming up is ended, by us alone."""
    with terminal(*place.command()) as shown:
        shown.wait_for("starting")
        place.wait_until(lambda: _servers(shown), shown)
        status = Path(f"/proc/{_servers(shown)[0].pid}/status").read_text()
        blocked = re.search(r"^SigBlk:\s*([0-9a-f]+)$", status, re.MULTILINE)
        assert blocked
        assert int(blocked[1], 16) & 1 << signal.SIGINT - 1, "the terminal's Ctrl-C ends the server too"
        text = interrupted(shown)
        assert f"--run-id {RUN}" in text
        assert "nothing was changed" in text
        assert ledger.find(place.connection, RUN) is None
        assert list(place.home.glob("*.json")) == []


def test_while_a_model_is_asked_and_resumed(place: Place, provider: OpenAIServer, api: str) -> None:
    """A call that would take a minute is not waited for; the run is resumed and loses nothing."""
    provider.delay = 0.3
    provider.plant(delay=60.0, after=6)
    command = place.command(f"embedder={MODEL}", "batch_rows=20", "cutover=auto")
    with terminal(*command, environment={"PREFECT_API_URL": api}) as shown:
        place.wait_until(lambda: provider.faults[0].after <= 0, shown)
        line = r"load .* rows, [0-9,]+ rows/s, \d:\d\d:\d\d left"
        place.wait_until(lambda: re.search(line, shown.shown), shown)  # the snapshot's own line has been there before
        text = interrupted(shown)
        recorded(place, text)
    provider.heal()
    provider.delay = 0
    resume = text.rpartition("vecferry ")[2].split()
    with terminal(*resume, "-p", "gates.max_quarantined=20", environment={"PREFECT_API_URL": api}) as shown:
        shown.wait_for("vecferry contract")
        shown.type("\x03")  # while Python closes down
        assert shown.ended() == 0, shown.shown
        assert "interrupted" not in shown.shown
        assert "Traceback" not in shown.shown
    assert ledger.get(place.connection, RUN).state == "cut_over"


@pytest.mark.whole
def test_during_the_wait_before_a_retry(place: Place, provider: OpenAIServer, api: str) -> None:
    """A task that waits half a minute before it is tried again is not waited for."""
    provider.plant(status=503, after=1)
    environment = {"PREFECT_API_URL": api, "VECFERRY_RETRY_SECONDS": "30"}
    with terminal(*place.command(f"embedder={MODEL}", "batch_rows=50"), environment=environment) as shown:
        place.wait_until(lambda: len(provider.answered(503)) > 3, shown)
        time.sleep(0.5)
        recorded(place, interrupted(shown))
    assert _flow_run_states(api) == ["CRASHED"]


@pytest.mark.whole  # as_json is interrupted there too
def test_while_an_index_is_built(place: Place, api: str) -> None:
    """The statement in PostgreSQL is ended too."""
    _slow(place, "CREATE INDEX", "CREATE INDEX%hnsw%")
    with terminal(*place.command("cutover=auto"), environment={"PREFECT_API_URL": api}) as shown:
        place.wait_until(lambda: _active(place, "CREATE INDEX%hnsw%"), shown)
        text = interrupted(shown)
        assert text.endswith("-p cutover=auto")
        recorded(place, text)
        assert not _active(place, "CREATE INDEX%")


@pytest.mark.whole
def test_during_the_switch(place: Place, api: str) -> None:
    """The transaction that gives the tables their names is taken back."""
    _slow(place, "ALTER TABLE", "%SET SCHEMA%public%")
    command = place.command("cutover=auto", "gates.max_quarantined=20")
    with terminal(*command, environment={"PREFECT_API_URL": api}) as shown:
        place.wait_until(lambda: _active(place, "%SET SCHEMA%public%"), shown)
        assert interrupted(shown).endswith(f"vecferry cutover {RUN}")
    assert place.connection.execute("SELECT to_regclass('public.docs')").fetchone() == (None,)
    record = ledger.get(place.connection, RUN)
    assert (record.state, record.error) == ("verified", "interrupted")

    into = place.home.parent / "restored"
    with terminal("restore", RUN, "--into", str(into), environment={"PREFECT_API_URL": api}) as shown:
        place.wait_until(lambda: (into / "chroma.sqlite3").exists(), shown)
        text = interrupted(shown)
    assert f"{into} is incomplete. Remove it and start again: vecferry restore {RUN} --into {into}" in text


@pytest.mark.whole
def test_as_json(place: Place, api: str) -> None:
    """Standard output holds one object, as at any other end, and standard error the line."""
    _slow(place, "CREATE INDEX", "CREATE INDEX%hnsw%")
    process = subprocess.Popen(
        [COMMAND, *place.command("workers=1"), "--json"],
        env=os.environ | {"PREFECT_API_URL": api},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        until = time.monotonic() + 100
        while not _active(place, "CREATE INDEX%hnsw%"):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=patience())
    finally:
        process.kill()
    outcome = json.loads(out)
    assert (process.returncode, outcome["exit"], outcome["state"], outcome["error"]) == (1, 1, "failed", "interrupted")
    assert outcome["next"] == f"vecferry run chroma-to-pgvector --run-id {RUN} -p workers=1"
    assert err == f"vecferry: interrupted; what is done of run {RUN} is kept. Go on with: {outcome['next']}\n"


@pytest.mark.whole
def test_during_verification_twice(place: Place, api: str) -> None:
    """An impatient second Ctrl-C ends it no worse."""
    with terminal(*place.command(), environment={"PREFECT_API_URL": api}) as shown:
        place.wait_until(lambda: any(b.status == "done" for b in place.stage("catch_up")), shown)
        with _locked(place):
            recorded(place, interrupted(shown, times=2))


@pytest.mark.whole
def test_at_the_question_whether_to_switch(place: Place) -> None:
    """The run is verified, and stays it; the line names the cutover."""
    with terminal(*place.command("cutover=ask")) as shown:
        shown.wait_for("Switch now?")
        assert interrupted(shown).endswith(f"vecferry cutover {RUN}")
    assert ledger.get(place.connection, RUN).state == "verified"


def test_while_postgresql_hangs(place: Place, api: str) -> None:
    """A database that does not answer is not waited for; the next start finds a run that was killed."""
    server = psutil.Process(int(Path(_setting(place, "data_directory"), "postmaster.pid").read_text().split()[0]))
    with terminal(*place.command(), environment={"PREFECT_API_URL": api}) as shown:
        place.wait_until(lambda: place.stage("list"), shown)
        processes = [server, *server.children()]
        try:
            for process in processes:
                with suppress(psutil.NoSuchProcess):  # one that was just ending
                    process.suspend()
            assert "`vecferry status`" in interrupted(shown)
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


@pytest.mark.whole
def test_while_an_approval_is_waited_for(place: Place, api: str) -> None:
    """With a Prefect server the command says where to approve; interrupted there, the run stays verified."""
    with terminal(
        *place.command("cutover=ask", "gates.max_quarantined=20"), environment={"PREFECT_API_URL": api}
    ) as shown:
        shown.wait_for("approve or reject at ")
        address = shown.shown.partition("approve or reject at ")[2].split()[0]
        flow_run = re.fullmatch(rf"{api.removesuffix('/api')}/runs/flow-run/([0-9a-f-]{{36}})", address)
        assert flow_run, address
        place.wait_until(lambda: _flow_run_states(api) == ["PAUSED"], shown)
        assert f"vecferry cutover {RUN}" in interrupted(shown)
    assert ledger.get(place.connection, RUN).state == "verified"
    assert _flow_run_states(api) == ["CRASHED"]


def test_while_a_plan_waits_for_its_source(connection: Connection) -> None:
    """Before anything is written; the command to start again is the one that was typed."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes connections and never answers
        server.settimeout(100)
        port = server.getsockname()[1]
        command = ["plan", "chroma-to-pgvector", "-p", "chroma.host=127.0.0.1", "-p", f"chroma.port={port}"]
        with terminal(*command) as shown, server.accept()[0]:
            text = interrupted(shown)
            assert "nothing was changed" in text
            assert text.endswith(f"vecferry {' '.join(command)}")


@pytest.mark.whole
def test_an_embedded_postgresql_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    """The database that the command itself started goes with it."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    store = chroma.create_directory(str(tmp_path / "chroma"))
    for number in range(3):
        store.create(Collection(f"docs{number}", "", 0, 64, "cosine"))
        store.write(f"docs{number}", records_of(2000, 64))
    home = tmp_path / "home"
    environment = {"PREFECT_API_URL": api, "VECFERRY_HOME": str(home)}
    with terminal(
        "run", "chroma-to-pgvector", "-p", f"chroma.path={tmp_path}/chroma", "--run-id", RUN, environment=environment
    ) as shown:
        shown.wait_for("load")
        interrupted(shown)
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_no_embedded_postgresql_is_started_again(tmp_path: Path) -> None:
    """Once a command that ends has stopped it, a thread of its own that is still at work starts none."""
    program = (
        "import sys; from tasks.stores.postgres import embedded; embedded.url(sys.argv[1]); embedded.close()\n"
        "embedded.url(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert "has stopped, because this command is ending" in done.stderr
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_a_command_of_hundreds_of_files_is_not_shown_once_more() -> None:
    """Nobody finds its beginning in a screen of names."""
    files = " ".join(f"{number}.txt" for number in range(300))
    few, many = (interrupt._ending(f"vecferry ingest {names}") for names in ("1.txt", files))
    assert few == ": vecferry ingest 1.txt"
    assert many == " the same command"


def _servers(shown: Terminal) -> list[psutil.Process]:
    children = psutil.Process(shown.process.pid).children()
    return [child for child in children if "prefect.server" in " ".join(child.cmdline())]


def _slow(place: Place, tag: str, like: str) -> None:
    """Statements like that take a minute."""
    place.connection.execute(
        "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS "
        f"$$BEGIN IF current_query() LIKE '{like}' THEN PERFORM pg_sleep(60); END IF; END$$;"
        f"CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('{tag}') EXECUTE FUNCTION slow()"
    )


def _setting(place: Place, name: str) -> str:
    row = place.connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row
    return str(row[0])


def _active(place: Place, like: str) -> bool:
    row = place.connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE %s "
        "AND pid <> pg_backend_pid()",
        (like,),
    ).fetchone()
    return bool(row and row[0])


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    """Nobody else reads the run's shadows."""
    row = place.connection.execute("SELECT table_schema, table_name FROM vecferry.relation").fetchone()
    assert row
    with psycopg.connect(place.connection.info.dsn, application_name="test") as connection:
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(*row)))
        time.sleep(1)
        yield


def _flow_run_states(api: str) -> list[str]:
    result = httpx.post(f"{api}/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}).raise_for_status()
    return [run["state"]["type"] for run in result.json()]


def test_a_demo_before_its_run(tmp_path: Path) -> None:
    """It has made something by then, which the next one does without."""
    with terminal("demo", "chroma-to-pgvector", "--dir", str(tmp_path / "demo")) as screen:
        screen.wait_for("1. ")
        screen.type("\x03")
        assert screen.ended() == 1, screen.shown
        assert (
            "vecferry: interrupted; a demo always starts over: vecferry demo chroma-to-pgvector --dir " in screen.shown
        )
        assert "Traceback" not in screen.shown
