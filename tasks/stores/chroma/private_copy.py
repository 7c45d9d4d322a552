"""Private copies of Chroma directories, to be opened in place of them.

Opening a directory migrates its files, and the application that wrote them may not open them again; two clients on one
directory break each other. So what is read of it is copied (shared with it where the file system can), opened, and
removed after use: with the process, or at the next start where the process was killed.
"""

import fcntl
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.base.errors import UsageError
from tasks.base.files import DISK_FULL
from tasks.stores.chroma import segment as chroma_segment
from tasks.stores.chroma.segment import DATABASE

FOLDER = "chroma-copies"
SIDECARS = ("-wal", "-journal")
"""What SQLite keeps beside a database that is, or was until a kill, in the middle of a transaction; -shm is derived."""
SETTLED_SECONDS = 0.05
"""A file that was written this short a time ago may be written again without its time of change showing it."""
TRIES = 4
LOCKED_BYTES = 1 << 30
"""Largest database that is copied under SQLite's read lock, for which its writers wait, a second or two."""
SPARE_BYTES = 32 << 20
"""Left free besides: Chroma migrates the copy, and everything else on that disk goes on."""
FICLONE = 0x40049409
"""linux/fs.h: the new file shares the blocks of the old one until either is written."""
WRITTEN_SECONDS = 0.5
"""In which an application is done with writing a segment."""
_DAMAGED = (
    "Restore it from a backup, or name the other collections with -p collections. What Chroma still shows of it is "
    "migrated from a copy that is served with `chroma run`: give chroma.host"
)
_WRITERS = (
    "Stop what writes there, or serve the directory with the `chroma run` of its own version and give chroma.host"
)

Stamp = dict[str, tuple[int, int, int]]
"""Relative path → size, time of change, inode."""


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
_created: set[Path] = set()
"""Homes that were not there before, and go again with the last copy where nothing else came into them."""
_own: set[Path] = set()
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
            if not (fresh and _stamp(wanted.path, kept.segments) != kept.stamp):
                return kept
        for stale in {wanted, whole} & _newest.keys():
            del _newest[stale]  # removed when nobody reads it any more
        made = _make(wanted, home)
        _newest[wanted] = made
        return made


def remove_left(home: str) -> None:
    """Removes the copies of processes that are gone: those whose lock nobody holds."""
    for root in _roots(home):
        for lock in root.glob("*.lock") if root.is_dir() else ():
            with suppress(FileNotFoundError), lock.open("rb") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                _remove_files(lock.with_suffix(""), lock)


def remove_own() -> None:
    """Removes this process's copies while they may still be read: for an end that waits for nobody."""
    for folder in list(_own):
        _remove_files(folder, Path(f"{folder}.lock"))


def _make(wanted: Wanted, home: str) -> Copy:
    remove_left(home)
    for attempt in range(TRIES + 1):
        folder, lock = _new_folder(home, sum(size for size, _, _ in _stamp(wanted.path).values()))
        try:
            made = _attempt(wanted, folder, locked=attempt == TRIES)
            damage = chroma_segment.problems(folder, made.segments) if made else []
            if damage and attempt == 0:  # perhaps only half written by now
                time.sleep(WRITTEN_SECONDS)
                made = None
            elif damage:
                raise UsageError(f"chroma.path: {wanted.path} is damaged. {'. '.join(damage)}. {_DAMAGED}")
        except sqlite3.DatabaseError as error:
            _discard(folder, lock)
            raise UsageError(f"chroma.path: {Path(wanted.path) / DATABASE} cannot be read: {error}") from error
        except OSError as error:
            _discard(folder, lock)
            raise _explained(wanted.path, folder, error) from error
        except BaseException:
            _discard(folder, lock)
            raise
        if made:
            weakref.finalize(made, _close_and_discard, made.clients, folder, lock)
            return made
        _discard(folder, lock)
    raise UsageError(f"chroma.path: {wanted.path} is written to all the time, so it cannot be copied. {_WRITERS}")


def _attempt(wanted: Wanted, folder: Path, locked: bool) -> Copy | None:
    """The copy, or None where the files changed meanwhile. With ``locked`` the database is copied at one moment that
    SQLite gives, whatever its writers do; the vector segments have to hold still in any case."""
    before = _settled(wanted.path)
    database = [name for name in before if "/" not in name]
    source, target = Path(wanted.path), folder
    if locked:
        if before[DATABASE][0] > LOCKED_BYTES:
            return None
        _check_room(wanted.path, folder, before, database)
        _backup(source / DATABASE, target / DATABASE)
    elif not _copied(source, target, before, database):
        return None
    try:
        segments = _segments(target / DATABASE, wanted)
    except sqlite3.DatabaseError:
        if _stamp(wanted.path) != before:
            return None
        raise
    files = [name for name in before if name.partition("/")[0] in segments]
    if not _copied(source, target, before, files):
        return None
    after = _stamp(wanted.path, segments)
    meant = {name: before[name] for name in (*database, *files)}
    unchanged = {n: s for n, s in after.items() if "/" in n or not locked} == {
        n: s for n, s in meant.items() if "/" in n or not locked
    }
    return Copy(str(folder), sum(s[0] for s in meant.values()), meant, segments) if unchanged else None


def _stamp(path: str, segments: Iterable[str] | None = None) -> Stamp:
    """The files that matter, as they are now: the database and its sidecars, and the folders of segments."""
    stamp: Stamp = {}
    names = [DATABASE + end for end in ("", *SIDECARS)]
    for folder in os.scandir(path) if segments is None else ():
        if folder.is_dir():
            names += [f"{folder.name}/{name}" for name in os.listdir(folder)]
    for segment in segments or ():
        with suppress(FileNotFoundError):
            names += [f"{segment}/{name}" for name in os.listdir(os.path.join(path, segment))]
    for name in names:
        with suppress(FileNotFoundError):
            status = os.stat(os.path.join(path, name))
            stamp[name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return stamp


def _settled(path: str) -> Stamp:
    stamp = _stamp(path)
    age = time.time() - max((s[1] for s in stamp.values()), default=0) / 1e9
    if 0 <= age < SETTLED_SECONDS:
        time.sleep(SETTLED_SECONDS - age)
        stamp = _stamp(path)
    if DATABASE not in stamp:
        raise UsageError(f"chroma.path: {path} holds no Chroma database any more ({DATABASE})")
    return stamp


def _copied(source: Path, target: Path, stamp: Stamp, names: list[str]) -> bool:
    """Copies the files; False where one is gone."""
    if not names:
        return True
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
    try:
        first, rest = names[0], names
        if _cloned(source / first, target / first):
            rest = [name for name in names[1:] if not _cloned(source / name, target / name)]
        if rest:
            _check_room(str(source), target, stamp, rest)
        for name in rest:
            shutil.copyfile(source / name, target / name)
    except FileNotFoundError:
        return False
    return True


def _cloned(source: Path, target: Path) -> bool:
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError:  # another file system, or one that cannot share blocks
            return False
    return True


def _backup(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        new.execute("PRAGMA synchronous = off")
        old.backup(new)


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


def _check_room(path: str, folder: Path, stamp: Stamp, names: Iterable[str]) -> None:
    needed = sum(stamp[name][0] for name in names) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"a private copy of {path} takes {_mb(needed)} MB in {folder.parent}, where {_mb(free)} MB are free: free some, "
            f"or set VECFERRY_HOME or TMPDIR to a larger place"
        )


def _explained(path: str, folder: Path, error: OSError) -> UsageError:
    if error.errno in DISK_FULL:
        return UsageError(
            f"a private copy of {path} does not fit into {folder.parent}: set VECFERRY_HOME or TMPDIR to a larger place"
        )
    if isinstance(error, PermissionError):
        return UsageError(f"chroma.path: no permission to read {error.filename}")
    return UsageError(f"chroma.path: {path} cannot be copied: {error}")


def _roots(home: str) -> list[Path]:
    """Where copies may lie: under the home where that is a directory, and beside other temporary files where that has no
    room or may not be written."""
    temporary = Path(tempfile.gettempdir()) / f"vecferry-{FOLDER}-{os.getuid()}"
    return [temporary] if "://" in home else [Path(home) / FOLDER, temporary]


def _roomiest_first(roots: list[Path], needed: int) -> list[Path]:
    """The first that has room comes first, else the one with the most."""
    free = {root: shutil.disk_usage(_existing(root)).free for root in roots}
    return sorted(roots, key=lambda root: -min(free[root], needed + SPARE_BYTES))


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _new_folder(home: str, needed: int) -> tuple[Path, int]:
    """A new, empty folder that only its owner may read, and the lock that says that we live."""
    for root in _roomiest_first(_roots(home), needed):
        for number in range(1_000):
            folder = root / f"{os.getpid()}-{time.time_ns()}-{number}"
            try:
                if not root.parent.exists():
                    _created.add(root.parent)
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
                if root.stat().st_uid != os.getuid():  # somebody else might take away what lies there
                    break
                lock = os.open(f"{folder}.lock", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            except FileNotFoundError:  # another process has just removed the empty root
                continue
            except OSError:  # read-only, or somebody else's
                break
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:  # else taken for a dead one's before it was locked
                _own.add(folder)
                folder.mkdir(mode=0o700)
                return folder, lock
            os.close(lock)
    raise UsageError(
        f"no place for a private copy of the Chroma directory: {' and '.join(map(str, _roots(home)))} cannot be written; "
        f"set VECFERRY_HOME"
    )


def _close_and_discard(clients: dict[Any, Any], folder: Path, lock: int) -> None:
    for client in clients.values():
        client.close()
    _discard(folder, lock)


def _discard(folder: Path, lock: int) -> None:
    _own.discard(folder)
    _remove_files(folder, Path(f"{folder}.lock"))
    os.close(lock)


def _remove_files(folder: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.unlink(missing_ok=True)
    with suppress(OSError):  # others lie there, or it is the user's own
        folder.parent.rmdir()
        if folder.parent.parent in _created:
            folder.parent.parent.rmdir()


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
