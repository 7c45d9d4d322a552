"""What meets the switch of renamed columns on its way: statements of the application's that wait for it, and a kill in the middle."""

import subprocess
import sys
import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tasks.cutover import contract, cutover, rollback
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run, open_run
from tasks.shadows.registry import shadow_of, units_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import rounded
from tests.helpers.renamed_table import NEW, OLD, Mirrored, Reports, plan, ready, renaming, text_of, verified
from tests.helpers.sampling import sampled

__all__ = ["renaming"]
pytestmark = pytest.mark.usefixtures("renaming")
NAMES = ("match_reports", "update_report_embedding")
SEARCH = "SELECT id FROM reports ORDER BY embedding <=> %s::vector LIMIT 1"
WRITE = "UPDATE reports SET embedding = %s::vector WHERE id = 7 RETURNING id"
READ = "SELECT embedding FROM reports WHERE id = 7"


def made(text: str) -> Any:
    return rounded(OLD.embed([text]).whole[0])


def in_flight(database: str, run: Run, statements: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Switches, and has each statement, one of them known to the server from before, wait for that in a session of its own; returns what
    became of each, its row or its error."""
    outcomes, threads = dict[str, Any](), list[threading.Thread]()
    sessions = {name: psycopg.connect(database, autocommit=True) for name in statements}
    for name, (text, *values) in statements.items():
        if name.startswith("prepared"):
            sessions[name].execute(text.encode(), values, prepare=True)

    def send(name: str, text: str, *values: object) -> None:
        try:
            outcomes[name] = sessions[name].execute(text.encode(), values).fetchone()
        except psycopg.Error as error:
            outcomes[name] = error

    def met(connection: Connection) -> None:
        for name, (text, *values) in statements.items():
            threads.append(threading.Thread(target=send, args=(name, text, *values)))
            threads[-1].start()
        pids, until = [session.info.backend_pid for session in sessions.values()], time.monotonic() + 20
        waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid = ANY(%s)"
        while connection.execute(waiting, (pids,)).fetchone() != (len(pids),) and time.monotonic() < until:
            time.sleep(0.01)
        assert outcomes == {}

    (unit,) = units_of(run)
    unit.switch(Mark(run.connection, met))
    for thread in threads:
        thread.join()
    for session in sessions.values():
        session.close()
    return outcomes


def test_direct_statements_that_wait_for_the_switch(connection: Connection, database: str) -> None:
    """They are looked up once it is done, prepared ones anew: with old vectors they fail, by words of dimensions, or of the result's
    type, and change nothing; with new ones they are right; what names no vector goes through, and its row is queued."""
    reports = Reports(connection)
    run = verified(connection)
    old, new = reports.vector(text_of(7), OLD), reports.vector(text_of(7), NEW)
    outcomes = in_flight(
        database,
        run,
        {
            "search": (SEARCH, old),
            "prepared search": (SEARCH, old),
            "write": (WRITE, old),
            "prepared write": (WRITE, old),
            "prepared read": (READ,),
            "new search": (SEARCH, new),
            "change": ("UPDATE reports SET content = 'other words' WHERE id = 8 RETURNING id",),
        },
    )
    assert {name: type(outcome) for name, outcome in outcomes.items() if isinstance(outcome, Exception)} == {
        "search": errors.DataException,
        "prepared search": errors.DataException,
        "write": errors.DataException,
        "prepared write": errors.DataException,
        "prepared read": errors.FeatureNotSupported,
    }
    assert "different vector dimensions 24 and 16" in str(outcomes["search"])
    assert "expected 24 dimensions, not 16" in str(outcomes["prepared write"])
    assert "cached plan must not change result type" in str(outcomes["prepared read"])
    assert (outcomes["new search"], outcomes["change"]) == ((7,), (8,))
    shadow_of(run, run.plan.targets[0]).follow(1.0)
    assert reports.stored() == reports.expected()
    assert reports.stored("embedding_hashing_16")["7"] == reports.expected(OLD)["7"]


def test_a_write_in_flight_of_equal_dimensions_is_put_right(connection: Connection, database: str) -> None:
    """It lands among the new vectors, as nothing tells it from one; its row is queued, verify knows it, and catching up mends it."""
    reports, model = Reports(connection), Mirrored(16)
    run = verified(connection, new=model, embedder="mirrored/16", target={"new_column": "embedding_new"})
    vector = reports.vector("another text", OLD)
    assert in_flight(database, run, {"write": (WRITE, vector)}) == {"write": (7,)}
    shadow = shadow_of(run, run.plan.targets[0])
    assert reports.stored()["7"] != reports.expected(model)["7"]
    assert shadow.compare().stale.ids == ("7",)
    assert shadow.follow(1.0).stale.ids == ("7",)
    assert reports.stored() == reports.expected(model)


KILLS = {
    "cutover": "PostgresUnit._change = killed",
    "rollback": "PostgresUnit._each = killed",
}


def killed(verb: str) -> None:
    """Kills a process in the middle of a verb: between its short transaction for the functions, and that of the columns."""
    code = (
        "import os, signal\n"
        "from tasks import cutover\n"
        "from tasks.runs.run import open_run\n"
        "from tasks.shadows.postgres.unit import PostgresUnit\n"
        "def killed(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{KILLS[verb]}\n"
        f"cutover.{verb}(open_run('r', 'DATABASE_URL'))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9


@pytest.mark.parametrize("after", sampled(["cutover", "rollback", "plan"], "cutover"))
def test_a_kill_between_the_functions_and_the_columns(connection: Connection, after: str) -> None:
    """Everybody is answered as before by the functions that stand in, and who writes writes what he did; the cutover goes on from there, a
    rollback or another run's plan finds nothing in the way, and in the end the functions are the application's own, to the letter."""
    reports = Reports(connection)
    before = [reports.function(name) for name in NAMES]
    old = reports.nearest(text_of(7), OLD)
    run = verified(connection)
    killed("cutover")
    assert reports.columns() == {"embedding": "vector(16)", "embedding_24": "vector(24)"}
    assert reports.nearest(text_of(7), OLD) == old
    reports.write(7, reports.vector("another text", OLD))
    assert reports.stored()["7"] == made("another text")
    reports.write(7, reports.vector(text_of(7), OLD))
    assert [reports.function(name) for name in NAMES] != before, "they stand in"
    if after == "plan":
        assert plan(connection, target={"new_column": "embedding_other"}).problems == []
    if after == "cutover":
        cutover(ready(connection, run))
        assert reports.nearest(text_of(7), NEW)[0] == (7, text_of(7), 1)
        assert reports.nearest(text_of(7), OLD) == old
    rollback(run)
    assert [reports.function(name) for name in NAMES] == before
    assert reports.nearest(text_of(7), OLD) == old


@pytest.mark.parametrize("after", sampled(["rollback", "cutover", "contract"], "rollback"))
def test_a_kill_between_the_columns_and_the_functions(connection: Connection, after: str) -> None:
    """Of a rollback: both columns have their names again, and everybody is answered; the same command, another cutover with its
    rollback, or a contract gives the application's own functions back, to the letter."""
    reports = Reports(connection)
    before = [reports.function(name) for name in NAMES]
    old = reports.nearest(text_of(7), OLD)
    run = verified(connection)
    cutover(run)
    killed("rollback")
    run = open_run("r", "DATABASE_URL")
    assert reports.columns() == {"embedding": "vector(16)", "embedding_24": "vector(24)"}
    assert reports.nearest(text_of(7), OLD) == old
    reports.write(7, reports.vector("another text", OLD))
    assert reports.stored()["7"] == made("another text")
    assert [reports.function(name) for name in NAMES] != before, "they stand in"
    if after == "cutover":
        cutover(ready(connection, run))
        assert reports.nearest(text_of(8), NEW)[0] == (8, text_of(8), 1)
    if after == "contract":
        contract(run, 0)
    else:
        rollback(run)
    assert [reports.function(name) for name in NAMES] == before
