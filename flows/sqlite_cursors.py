"""Loaded by Prefect's server (the entry point ``prefect.collections``), for the SQLite database that it keeps runs in.

SQLAlchemy 2.0 leaves the cursor of a statement that failed open, and statements do fail: two requests that write at once
give "database is locked". The garbage collector resets such a cursor later, in the thread of the event loop, and for
that waits for its connection. Where that connection is waiting for SQLite's write lock just then, and the lock is of a
request whose turn it is in the event loop, the server answers nobody until SQLite gives up, after 60 seconds."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiosqlite import Cursor

STATEMENTS = ("execute", "executemany", "fetchall")


def close_what_fails() -> None:
    """From now on a cursor whose statement fails, or is cancelled, is closed in the thread of its connection."""
    for name in STATEMENTS:
        setattr(Cursor, name, _closing(getattr(Cursor, name)))


def _closing(statement: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def run(cursor: Cursor, *arguments: Any) -> Any:
        try:
            return await statement(cursor, *arguments)
        except BaseException:
            future = asyncio.get_running_loop().create_future()
            cursor._conn._tx.put_nowait((future, cursor._cursor.close))  # not waited for: it may be cancelled too
            raise

    return run


close_what_fails()
