"""Private copies of Chroma directories, to be opened in place of them.

Opening a directory migrates its files, and the application that wrote them may not open them again; two clients on one
directory break each other. So what is read of it is copied (shared with it where the file system can), opened, and
removed after use: with the process, or at the next start where the process was killed.
"""

import sqlite3
import threading
import time
import weakref
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.base.errors import UsageError
from tasks.base.files import DISK_FULL
from tasks.stores.chroma import segment as chroma_segment
from tasks.stores.chroma.copy_folders import discard, new_folder, remove_left
from tasks.stores.chroma.directory_files import Stamp, backup, check_room, copied, settled, stamp_of
from tasks.stores.chroma.segment import DATABASE

TRIES = 4
LOCKED_BYTES = 1 << 30
"""Largest database that is copied under SQLite's read lock, for which its writers wait, a second or two."""
WRITTEN_SECONDS = 0.5
"""In which an application is done with writing a segment."""
_DAMAGED = (
    "Restore it from a backup, or name the other collections with -p collections. To migrate what "
    "Chroma still shows of it, serve a copy with `chroma run` and give chroma.host"
)
_WRITERS = (
    "Stop what writes there, or serve the directory with the `chroma run` of its own version and give chroma.host"
)


@dataclass(frozen=True, eq=False)
class Copy:
    """One copy. It is removed once nobody refers to it any more."""

    folder: str
    bytes: int
    stamp: Stamp = field(repr=False)
    """The files it was made of, as they were."""
    segments: frozenset[str]
    """Folders of the vector segments that are in it."""
    clients: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Chroma's clients of it, by tenant and database; they are closed before it is removed."""


@dataclass(frozen=True)
class Wanted:
    """What of a directory is to be copied."""

    path: str
    tenant: str
    database: str
    collections: frozenset[str] | None
    """None: all."""


_newest: dict[Wanted, Copy] = {}
"""Process-wide: Chroma keeps one system a directory and process, and a plan and its run read the same copy."""
_making = threading.Lock()


def copy_of(wanted: Wanted, home: str, fresh: bool) -> Copy:
    """This process's copy; made, and made anew where it is to be ``fresh`` and the files are not what they were.

    Raises UsageError where there is no room for it, or the files do not hold still.
    """
    with _making:
        whole = replace(wanted, collections=None)
        for kept in filter(
            None, map(_newest.get, (wanted, whole))
        ):  # a plan of all collections has copied those of a run
            if not (fresh and stamp_of(wanted.path, kept.segments) != kept.stamp):
                return kept
        for stale in {wanted, whole} & _newest.keys():
            del _newest[stale]  # removed when nobody reads it any more
        made = _make(wanted, home)
        _newest[wanted] = made
        return made


def _make(wanted: Wanted, home: str) -> Copy:
    remove_left(home)
    for attempt in range(TRIES + 1):
        folder, lock = new_folder(home, sum(size for size, _, _ in stamp_of(wanted.path).values()))
        try:
            made = _attempt(wanted, folder, locked=attempt == TRIES)
            damage = chroma_segment.problems(folder, made.segments) if made else []
            if damage and attempt == 0:  # perhaps only half written by now
                time.sleep(WRITTEN_SECONDS)
                made = None
            elif damage:
                raise UsageError(f"chroma.path: {wanted.path} is damaged. {'. '.join(damage)}. {_DAMAGED}")
        except sqlite3.DatabaseError as error:
            discard(folder, lock)
            raise UsageError(f"chroma.path: {Path(wanted.path) / DATABASE} cannot be read: {error}") from error
        except OSError as error:
            discard(folder, lock)
            raise _explained(wanted.path, folder, error) from error
        except BaseException:
            discard(folder, lock)
            raise
        if made:
            weakref.finalize(made, _close_and_discard, made.clients, folder, lock)
            return made
        discard(folder, lock)
    raise UsageError(f"chroma.path: {wanted.path} is being written to all the time, so it cannot be copied. {_WRITERS}")


def _attempt(wanted: Wanted, folder: Path, locked: bool) -> Copy | None:
    """The copy, or None where the files changed meanwhile. With ``locked`` the database is copied at one moment that
    SQLite gives, whatever its writers do; the vector segments have to hold still in any case."""
    before = settled(wanted.path)
    database = [name for name in before if "/" not in name]
    source, target = Path(wanted.path), folder
    if locked:
        if before[DATABASE][0] > LOCKED_BYTES:
            return None
        check_room(wanted.path, folder, before, database)
        backup(source / DATABASE, target / DATABASE)
    elif not copied(source, target, before, database):
        return None
    try:
        segments = _segments(target / DATABASE, wanted)
    except sqlite3.DatabaseError:
        if stamp_of(wanted.path) != before:
            return None
        raise
    files = [name for name in before if name.partition("/")[0] in segments]
    if not copied(source, target, before, files):
        return None
    after = stamp_of(wanted.path, segments)
    meant = {name: before[name] for name in (*database, *files)}
    unchanged = {n: s for n, s in after.items() if "/" in n or not locked} == {
        n: s for n, s in meant.items() if "/" in n or not locked
    }
    return Copy(str(folder), sum(s[0] for s in meant.values()), meant, segments) if unchanged else None


def _segments(database: Path, wanted: Wanted) -> frozenset[str]:
    """Folders of the vector segments of the collections that are wanted."""
    query = "SELECT s.id, c.name FROM segments s JOIN collections c ON c.id = s.collection"
    where = " JOIN databases d ON d.id = c.database_id AND d.tenant_id = ? AND d.name = ?"
    with closing(sqlite3.connect(database)) as connection:
        several = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'databases'").fetchone()  # since 0.4.15
        rows = connection.execute(
            f"{query}{where if several else ''} WHERE s.scope = 'VECTOR'",
            (wanted.tenant, wanted.database) if several else (),
        ).fetchall()
    return frozenset(s for s, name in rows if wanted.collections is None or name in wanted.collections)


def _explained(path: str, folder: Path, error: OSError) -> UsageError:
    if error.errno in DISK_FULL:
        return UsageError(
            f"a private copy of {path} does not fit into {folder.parent}: set VECFERRY_HOME or TMPDIR to a larger place"
        )
    if isinstance(error, PermissionError):
        return UsageError(f"chroma.path: no permission to read {error.filename}")
    return UsageError(f"chroma.path: {path} cannot be copied: {error}")


def _close_and_discard(clients: dict[Any, Any], folder: Path, lock: int) -> None:
    for client in clients.values():
        client.close()
    discard(folder, lock)
