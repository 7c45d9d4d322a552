"""Holding a run: one process works on it, by an advisory lock in its ledger's database, and what a killed one left in the
server is ended."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.runs import checkpoints, ledger, ledger_versions, locks
from tasks.runs.commands import command
from tasks.runs.ledger import RunRecord
from tasks.stores.postgres.connection import Connection, connect

LOCK_WATCH = 1.0
"""Seconds between two looks at whether the run still holds its lock."""

_before: dict[str, RunRecord] = {}
"""The runs that this process is the sole runner of, as they were before. Process-wide, because a run is held before it is
opened, and what ends the process after Ctrl-C must know of it."""


@contextmanager
def sole_runner(url: str, run_id: str) -> Iterator[None]:
    """Holds the run's advisory lock on a connection of its own, and ends what a killed runner left in the server. A ledger
    that is there is brought forward first.

    A server that restarts forgets the lock, so it is watched and taken again; when somebody else has it by then, the
    run is asked to stop. Raises UsageError when another process runs it.
    """
    connection = _locked(url, run_id, ledger_versions.bring_forward)
    if connection is None:
        with connect(url, "vecferry status") as other:
            record = ledger.find(other, run_id)
        database = record.plan.request.database if record else DEFAULT_DATABASE
        look = command("status", run_id, database)
        raise UsageError(f"another process is working on run {run_id}: wait for it, or see `{look}`")
    done = threading.Event()
    keeper = threading.Thread(target=_keep_lock, args=(connection, url, run_id, done), daemon=True)
    try:
        if before := ledger.find(connection, run_id):
            _before[run_id] = before
        _end_leftovers(connection, run_id)
        keeper.start()
        yield
    finally:
        _before.pop(run_id, None)
        done.set()
        if keeper.ident:
            keeper.join()
        with suppress(psycopg.OperationalError):  # the server is gone, and the lock with it
            # A server takes note of a closed connection in its own time; who comes next must not be refused meanwhile.
            connection.execute("SELECT pg_advisory_unlock_all()")
        connection.close()


def holds(run_id: str) -> bool:
    """Whether this process is the run's sole runner."""
    return run_id in _before


def interrupt(connection: Connection, run_id: str) -> None:
    """Records that this process, which holds the run, was told to end, and asks its workers to stop. A run that had been
    verified before stays that, and one that has come to an end meanwhile stays as it is."""
    checkpoints.request_stop(connection, run_id, f"run {run_id} was interrupted")
    if before := _before.get(run_id):
        retried = before.state == "rolled_back" and ledger.get(connection, run_id).doing == "cutover"
        ledger.end_badly(connection, before, before.state == "verified" or retried, "interrupted", 1)


def application(run_id: str) -> str:
    """The application_name of a run's connections, by which leftovers of a killed runner are known."""
    return f"vecferry {run_id}"


def end_connections(connection: Connection, run_id: str) -> int:
    """Ends what the run's connections are doing in the server, and returns how many there were."""
    return len(
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = %s AND pid <> pg_backend_pid() AND datname = current_database()",
            (application(run_id),),
        ).fetchall()
    )


def _locked(url: str, run_id: str, before: Callable[[Connection], None] | None = None) -> Connection | None:
    """A connection that holds the run's lock, which is taken after ``before``; None where another process holds it."""
    connection = connect(url, f"vecferry lock {run_id}")
    try:
        if before:
            before(connection)
        row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (locks.RUNS, run_id)).fetchone()
    except BaseException:
        connection.close()
        raise
    if row and row[0]:
        return connection
    connection.close()
    return None


def _keep_lock(connection: Connection, url: str, run_id: str, done: threading.Event) -> None:
    lock: Connection | None = connection
    while not done.wait(LOCK_WATCH):
        try:
            if lock is None:
                lock = _locked(url, run_id)
                if lock is None:
                    with connect(url, f"vecferry lock {run_id}") as other:
                        checkpoints.request_stop(other, run_id, f"run {run_id} lost its lock to another process")
                    return
            lock.execute("SELECT 1")
        except (psycopg.OperationalError, TransientError):
            lock = None  # the server is restarting: asked again in a moment
    if lock is not None and lock is not connection:
        lock.close()


def _end_leftovers(connection: Connection, run_id: str) -> None:
    """A killed client's query goes on in the server for a while and would hold locks against its successor."""
    for _ in range(100):
        if not end_connections(connection, run_id):
            return
        time.sleep(0.1)
    raise FatalError(f"run {run_id}: connections of an earlier process do not end; see pg_stat_activity")
