"""Loaded by Prefect's server (the entry point ``prefect.collections``), for the SQLite database that it keeps runs in.

Prefect begins most of its transactions as if they only read. One that has read, and writes when another has written
meanwhile, is told "database is locked" at once, however long it would wait; the server answers 503, and its client sleeps
for 2 seconds before it asks again, in every third flow that has ten tasks. Begun as what they are, they wait their turn,
some milliseconds.

SQLAlchemy 2.0 leaves the cursor of a statement that failed open, and statements do fail: two requests that write at once
give "database is locked". The garbage collector resets such a cursor later, in the thread of the event loop, and for
that waits for its connection. Where that connection is waiting for SQLite's write lock just then, and the lock is of a
request whose turn it is in the event loop, the server answers nobody until SQLite gives up, after 60 seconds."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiosqlite import Cursor

STATEMENTS = ("execute", "executemany", "fetchall")


def write_from_the_beginning() -> None:
    """From now on a transaction of Prefect's takes SQLite's write lock when it begins. Does nothing where the server's code
    is not imported: a worker loads this module too."""
    configurations = sys.modules.get("prefect.server.database.configurations")
    if configurations is None:
        return
    sqlite, mode = configurations.AioSqliteConfiguration, configurations.SQLITE_BEGIN_MODE
    begin = sqlite.begin_transaction

    def begin_transaction(config: Any, session: Any, with_for_update: bool = False) -> Any:
        # One within another would wait for that.
        return begin(config, session, with_for_update=with_for_update or mode.get() is None)

    sqlite.begin_transaction = begin_transaction


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


write_from_the_beginning()
close_what_fails()
