"""The rate of an account, as all processes that work with one ledger share it: a row in PostgreSQL, read and written by single
statements, so that no lock outlives a process that is killed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from tasks.runs.database import Connection
from tasks.stores.postgres.connection import classified

T = TypeVar("T")


@dataclass(frozen=True)
class LedgerRates:
    """Satisfies Rates."""

    connect: Callable[[], AbstractContextManager[Connection]]

    def change(self, account: str, step: Callable[[bytes | None, float], tuple[bytes | None, T]]) -> T:
        with classified("share the account's rate"), self.connect() as connection:
            while True:
                row = connection.execute(
                    "SELECT extract(epoch FROM clock_timestamp())::float8, (SELECT state FROM vecferry.rate WHERE account = %s), "
                    "(SELECT version FROM vecferry.rate WHERE account = %s)",
                    (account, account),
                ).fetchone()
                assert row
                now, kept, version = row
                state, result = step(kept.encode() if kept else None, now)
                if state is None or self._write(connection, account, state.decode(), version or 0):
                    return result

    def _write(self, connection: Connection, account: str, state: str, version: int) -> bool:
        """Whether nobody has written since that version was read."""
        return bool(
            connection.execute(
                "INSERT INTO vecferry.rate AS r (account, state, version) VALUES (%s, %s, 1) "
                "ON CONFLICT (account) DO UPDATE SET state = excluded.state, version = r.version + 1 WHERE r.version = %s",
                (account, state, version),
            ).rowcount
        )
