"""The rate of an account, as all processes that work with one ledger share it: a row in PostgreSQL, read and written by single
statements, so that no lock outlives a process that is killed."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from tasks.runs.database import Connection
from tasks.stores.postgres.connection import refusable

T = TypeVar("T")


class Kept(NamedTuple):
    """What the row of an account was when it was last read or written."""

    state: bytes | None
    version: int
    then: float
    """Seconds of the server's clock then."""
    asked_at: float
    """Of this process's clock, before the server was asked."""
    read_at: float
    """And once it had answered."""

    def now(self) -> float:
        """Seconds of the server's clock: late by the way of an answer from there, never early."""
        return self.then + time.monotonic() - self.read_at


@dataclass(frozen=True)
class LedgerRates:
    """Satisfies Rates. A change is one round trip where no other process has made one since: it is computed on what is
    remembered, and written if that still holds."""

    connect: Callable[[], AbstractContextManager[Connection]]
    remembered: dict[str, Kept] = field(default_factory=dict)

    def change(self, account: str, step: Callable[[bytes | None, float, float], tuple[bytes | None, T]]) -> T:
        with refusable("share the account's rate"), self.connect() as connection:
            kept, fresh = self.remembered.get(account), False
            while True:
                if kept is None:
                    kept, fresh = _read(connection, account), True
                state, result = step(kept.state, kept.now(), kept.read_at - kept.asked_at)
                if state is None:
                    if fresh:
                        return result
                    kept = None  # what it waits for may be there by now
                    continue
                kept, written = _write(connection, account, state, kept.version)
                fresh = not written
                self.remembered[account] = kept
                if written:
                    return result


def _read(connection: Connection, account: str) -> Kept:
    asked_at = time.monotonic()
    row = connection.execute(
        "SELECT r.state, r.version, extract(epoch FROM clock_timestamp())::float8 "
        "FROM (VALUES (1)) AS one LEFT JOIN vecferry.rate r ON r.account = %s",
        (account,),
    ).fetchone()
    assert row
    state, version, now = row
    return _kept(state, version, now, asked_at)


def _write(connection: Connection, account: str, state: bytes, version: int) -> tuple[Kept, bool]:
    """Writes it if nobody has since that version. Returns what is kept now, and whether that is it."""
    asked_at = time.monotonic()
    row = connection.execute(
        "WITH written AS (INSERT INTO vecferry.rate AS r (account, state, version) VALUES (%(account)s, %(state)s, 1) "
        "ON CONFLICT (account) DO UPDATE SET state = excluded.state, version = r.version + 1 "
        "WHERE r.version = %(version)s RETURNING version) "
        "SELECT w.version, r.state, r.version, extract(epoch FROM clock_timestamp())::float8 "
        "FROM (VALUES (1)) AS one LEFT JOIN written w ON true "
        "LEFT JOIN vecferry.rate r ON r.account = %(account)s AND w.version IS NULL",
        {"account": account, "state": state.decode(), "version": version},
    ).fetchone()
    assert row
    written, other, its_version, now = row
    if written:
        return Kept(state, written, now, asked_at, time.monotonic()), True
    return _kept(other, its_version, now, asked_at), False


def _kept(state: str | None, version: int | None, now: float, asked_at: float) -> Kept:
    return Kept(state.encode() if state else None, version or 0, now, asked_at, time.monotonic())
