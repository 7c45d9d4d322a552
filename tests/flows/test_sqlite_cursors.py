"""Prefect's server on SQLite: a statement that fails must leave nothing behind that can block its event loop, and
transactions wait for each other instead of failing."""

import asyncio
import sqlite3
from importlib.metadata import entry_points
from pathlib import Path

import aiosqlite
import pytest
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from flows import sqlite_cursors


def test_prefects_server_loads_it() -> None:
    """What Prefect's server looks for when it starts names the module."""
    assert sqlite_cursors.__name__ in {point.value for point in entry_points(group="prefect.collections")}


@pytest.mark.parametrize("statement", ["INSERT INTO t VALUES (1)", "SELECT count(*) FROM gone"])
def test_a_statement_that_fails_closes_its_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """SQLAlchemy's cursor of a statement that meets a locked database, or is wrong, is closed when the error is seen."""
    made: list[sqlite3.Cursor] = []
    path = tmp_path / "p.db"

    async def fail() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 0})
        async with engine.connect() as connection:
            cursor = aiosqlite.Connection.cursor

            def watched(self: aiosqlite.Connection) -> object:
                async def make() -> aiosqlite.Cursor:
                    opened = await cursor(self)
                    made.append(opened._cursor)
                    return opened

                return make()

            monkeypatch.setattr(aiosqlite.Connection, "cursor", watched)
            with pytest.raises(OperationalError):
                await connection.execute(text(statement))
            await connection.rollback()  # in the connection's thread, after the closing
            monkeypatch.undo()
        await engine.dispose()

    with sqlite3.connect(path) as writer:
        writer.execute("CREATE TABLE t (n integer)")
        writer.commit()
        writer.execute("BEGIN IMMEDIATE")
        asyncio.run(fail())
    (left,) = made
    with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
        left.fetchall()


@pytest.fixture
def writing_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Prefect's server, which has its own code imported when it loads the module."""
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", AioSqliteConfiguration.begin_transaction)
    sqlite_cursors.write_from_the_beginning()


@pytest.mark.usefixtures("writing_from_the_beginning")
def test_transactions_of_prefect_wait_for_each_other(tmp_path: Path) -> None:
    """Two that read and then write both succeed, though each has read before the other writes."""

    async def both() -> int:
        config = AioSqliteConfiguration(f"sqlite+aiosqlite:///{tmp_path}/p.db", timeout=30)
        engine = await config.engine()
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (n integer)"))

        async def write() -> None:
            async with await config.session(engine) as session, config.begin_transaction(session):
                await session.execute(text("SELECT count(*) FROM t"))
                await asyncio.sleep(0.2)
                await session.execute(text("INSERT INTO t VALUES (1)"))

        await asyncio.gather(write(), write())
        async with engine.connect() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM t"))).scalar_one())

    assert asyncio.run(both()) == 2


@pytest.mark.usefixtures("writing_from_the_beginning")
def test_a_transaction_within_another_does_not_wait_for_it(tmp_path: Path) -> None:
    """It reads while the outer one is open."""

    async def nested() -> int:
        config = AioSqliteConfiguration(f"sqlite+aiosqlite:///{tmp_path}/p.db", timeout=30)
        engine = await config.engine()
        async with await config.session(engine) as outer, config.begin_transaction(outer):
            await outer.execute(text("SELECT count(*) FROM sqlite_master"))
            async with await config.session(engine) as inner, config.begin_transaction(inner):
                assert SQLITE_BEGIN_MODE.get() == "DEFERRED"  # else this would be stuck for a minute
                return int((await inner.execute(text("SELECT count(*) FROM sqlite_master"))).scalar_one())

    assert asyncio.run(asyncio.wait_for(nested(), 20)) == 0
