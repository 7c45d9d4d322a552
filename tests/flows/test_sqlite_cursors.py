"""Prefect's server on SQLite: a statement that fails must leave nothing behind that can block its event loop."""

import asyncio
import sqlite3
from importlib.metadata import entry_points
from pathlib import Path

import aiosqlite
import pytest
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
