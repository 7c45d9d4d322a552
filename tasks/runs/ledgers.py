"""The ledgers that there are: runs whose targets lie in no PostgreSQL may have theirs elsewhere than the others have."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tasks.base.errors import TransientError, UsageError
from tasks.base.words import listed
from tasks.runs import ledger
from tasks.runs.database import Connection, connect, database_url, ledger_databases
from tasks.stores.postgres.named import LEDGERS

Identity = tuple[object, ...]


@dataclass(frozen=True)
class Reading:
    """One of the ledgers, open to be read."""

    database: str
    """Its name."""
    connection: Connection


def having(run_id: str) -> str:
    """The name of the database whose ledger has the run, of those that are looked at where nobody names one. Raises UsageError
    where none has it, or both have one of that name; where there is one ledger, nothing is asked of it."""
    if len(names := ledger_databases()) == 1:
        return names[0]
    holding, runs, unread = list[str](), dict[str, list[str]](), dict[str, str]()
    for reading in readable(unread):
        if ledger.find(reading.connection, run_id):
            holding.append(reading.database)
        runs[reading.database] = ledger.run_ids(reading.connection)[:5]
    if len(holding) > 1:
        named = " or ".join(f"-p database={name}" for name in holding)
        raise UsageError(f"there is a run {run_id!r} in {listed(holding)}: say which is meant, {named}")
    if holding:
        return holding[0]
    looked_at = [f"{name} has {', '.join(latest) or 'no runs yet'}" for name, latest in runs.items()]
    lost = [f"{name} was not looked at: {why}" for name, why in unread.items()]
    raise UsageError(
        "; ".join([f"there is no run {run_id!r} in {' or '.join(runs) or 'any ledger'}", *looked_at, *lost])
    )


def readable(unread: dict[str, str]) -> Iterator[Reading]:
    """Each of the ledgers once, however it is spelt, closed when the next is asked for. Why one cannot be read is noted in
    ``unread``, by its name; the only one that there is raises it."""
    names, seen = ledger_databases(), set[Identity]()
    for name in names:
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(connect(database_url(name), "vecferry status"))
                ledger.exists(connection)
            except (UsageError, TransientError) as error:
                if len(names) == 1:
                    raise
                unread[name] = str(error)
                continue
            if (there := _identity(connection)) not in seen:
                seen.add(there)
                yield Reading(name, connection)


def refuse_taken(connection: Connection, database: str, run_id: str) -> None:
    """Raises UsageError where the other ledger has a run of that name: both would keep their files in one folder.
    ``connection`` leads to the run's own ledger, ``database``. One that cannot be read now holds nobody back."""
    if database not in LEDGERS or len(ledger_databases()) == 1:
        return
    own = _identity(connection)
    for other in readable({}):
        if _identity(other.connection) != own and ledger.find(other.connection, run_id):
            raise UsageError(
                f"{other.database} has a run {run_id!r} already, and its files would lie in the same folder: "
                "choose another run_id"
            )


def _identity(connection: Connection) -> Identity:
    """Of a database, whichever way leads there."""
    row = connection.execute(
        "SELECT pg_postmaster_start_time(), oid FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    assert row
    return row
