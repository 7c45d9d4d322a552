"""Versions of the ledger's schema: each is a file sql/ledger_NNNN_*.sql, and adding a version is adding a file.

A command that only reads takes an older ledger as it is. The first one that writes brings it forward, in one transaction.
The lock of a run is taken after that alone, so whoever holds one while the ledger is old is an older program, which would
go on with tables that it does not know: nothing is brought forward then.
"""

from dataclasses import dataclass
from importlib.metadata import version as installed

from sql import names, statement
from tasks.base.errors import UsageError
from tasks.runs import locks
from tasks.stores.postgres.connection import Connection, refusable
from tasks.stores.postgres.locking import locked


@dataclass(frozen=True)
class Step:
    """What makes one version of the one before."""

    version: int
    file: str
    """For ``sql.statement``. It can be run again without harm."""


STEPS = tuple(Step(int(name.split("_")[1]), name) for name in names("ledger_"))
"""From version 1 on, without a gap."""
WORK = ("gates", "doing", "waiting_until")
"""Columns of vecferry.run that came with version 2, before versions were noted."""


@dataclass(frozen=True)
class Ledger:
    """What there is of a ledger in a database."""

    version: int
    """0: nothing."""
    noted: bool
    """Whether the ledger itself says so; those of 0.1.0 and shortly after are known by their tables."""


def latest() -> int:
    """The version that this program works with."""
    return STEPS[-1].version


def read(connection: Connection) -> Ledger:
    """The ledger as it is. Raises UsageError when it is newer than this program."""
    if connection.execute("SELECT to_regclass('vecferry.version') IS NULL").fetchone() == (True,):
        return Ledger(_unnoted(connection), False)
    last = connection.execute(
        "SELECT version, applied_by FROM vecferry.version ORDER BY version DESC LIMIT 1"
    ).fetchone()
    version, by = last or (0, None)
    if version > latest():
        raise UsageError(
            f"the ledger in this database has version {version}, and vecferry {installed('vecferry')} reads "
            f"versions up to {latest()}: install vecferry {by or 'of a later version'}, which upgraded it"
        )
    return Ledger(version, True)


def _unnoted(connection: Connection) -> int:
    """The version of a ledger that does not say it."""
    row = connection.execute(
        "SELECT to_regclass('vecferry.batch') IS NOT NULL, "
        "(SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('vecferry.run') AND attname = ANY(%s))",
        (list(WORK),),
    ).fetchone()
    assert row
    there, columns = row
    return 0 if not there else 2 if columns == len(WORK) else 1


def notice(connection: Connection) -> str | None:
    """What becomes of a ledger that is older than this program, in one line; None where there is nothing to be done."""
    ledger = read(connection)
    if ledger.version in (0, latest()):
        return None
    run = locks.at_work(connection)
    then = f", once an older vecferry has finished its work on run {run}" if run else ""
    return (
        f"the ledger in this database has version {ledger.version}; the next command that writes upgrades "
        f"it to version {latest()}{then}"
    )


def ensure(connection: Connection) -> None:
    """Makes the ledger where there is none, and of an older one the latest. Safe to call from many processes at once.

    Raises UsageError while a process of an older version works on a run, and when the ledger is newer than this program.
    """
    if read(connection) != Ledger(latest(), True):
        with refusable("bring the ledger forward"):
            locked(connection, lambda: _apply(connection))


def bring_forward(connection: Connection) -> None:
    """The same, where there is a ledger."""
    if read(connection).version:
        ensure(connection)


def _apply(connection: Connection) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (locks.LEDGER,))
    connection.execute("SET LOCAL client_min_messages = warning")
    before = read(connection)  # as it is now that no other process brings it forward
    if before == Ledger(latest(), True):
        return
    if before.version:
        _refuse_at_work(connection, before.version)
        # An older program that begins to work on a run now waits at its first look, and finds the new ledger.
        connection.execute("LOCK TABLE vecferry.run")
        _refuse_at_work(connection, before.version)  # it may have begun while the lock was waited for
    else:
        _create(connection)
    connection.execute(statement("expand_version"))
    program = installed("vecferry")
    for step in STEPS:
        new = step.version > before.version
        if new:
            connection.execute(statement(step.file))
        connection.execute(
            "INSERT INTO vecferry.version (version, step, applied_by) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (step.version, step.file, program if new else None),
        )


def _create(connection: Connection) -> None:
    row = connection.execute("SELECT to_regnamespace('vecferry') IS NOT NULL").fetchone()
    if not row or not row[0]:  # IF NOT EXISTS would ask for the right to create even where it is there
        connection.execute(statement("expand_schema"))


def _refuse_at_work(connection: Connection, version: int) -> None:
    if run := locks.at_work(connection):
        raise UsageError(
            f"an older vecferry is working on run {run}, so the ledger stays at version {version} instead of "
            f"{latest()}: wait until it ends, or stop it, then run this command again"
        )
