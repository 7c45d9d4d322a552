"""The files of a Chroma directory: what they are at a moment, and how they are copied, shared with it where the file system
can."""

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from tasks.base.errors import UsageError
from tasks.stores.chroma.segment import DATABASE

SIDECARS = ("-wal", "-journal")
"""What SQLite keeps beside a database that is, or was until a kill, in the middle of a transaction; -shm is derived."""
SETTLED_SECONDS = 0.05
"""A file that was written this short a time ago may be written again without its time of change showing it."""
SPARE_BYTES = 32 << 20
"""Left free besides: Chroma migrates the copy, and everything else on that disk goes on."""
FICLONE = 0x40049409
"""linux/fs.h: the new file shares the blocks of the old one until either is written."""

Stamp = dict[str, tuple[int, int, int]]
"""Relative path → size, time of change, inode."""


def stamp_of(path: str, segments: Iterable[str] | None = None) -> Stamp:
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


def settled(path: str) -> Stamp:
    """The same, once the last change is old enough to show in the times of the files."""
    stamp = stamp_of(path)
    age = time.time() - max((s[1] for s in stamp.values()), default=0) / 1e9
    if 0 <= age < SETTLED_SECONDS:
        time.sleep(SETTLED_SECONDS - age)
        stamp = stamp_of(path)
    if DATABASE not in stamp:
        raise UsageError(f"chroma.path: {path} no longer holds a Chroma database ({DATABASE})")
    return stamp


def copied(source: Path, target: Path, stamp: Stamp, names: list[str]) -> bool:
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
            check_room(str(source), target, stamp, rest)
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


def backup(source: Path, target: Path) -> None:
    """Copies a database as it is at one moment, whatever its writers do."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        new.execute("PRAGMA synchronous = off")
        old.backup(new)


def check_room(path: str, folder: Path, stamp: Stamp, names: Iterable[str]) -> None:
    """Raises UsageError where the disk of ``folder`` has no room for these files of ``path``."""
    needed = sum(stamp[name][0] for name in names) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"a private copy of {path} needs {_mb(needed)} MB in {folder.parent}, where {_mb(free)} MB is "
            "free: free some, or set VECFERRY_HOME or TMPDIR to a larger place"
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
