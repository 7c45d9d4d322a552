"""Folders for private copies: each with a lock that its process holds while it lives, so that what was left by processes
that were killed can be told, and removed."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tasks.base.errors import UsageError
from tasks.base.words import listed
from tasks.stores.chroma.directory_files import SPARE_BYTES

FOLDER = "chroma-copies"

_created: set[Path] = set()
"""Homes that were not there before, and go again with the last copy where nothing else came into them."""
_own: set[Path] = set()
"""Copies of this process, which removes them when it ends, whichever runs read them."""


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


def new_folder(home: str, needed: int) -> tuple[Path, int]:
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
        f"no place for a private copy of the Chroma directory: {listed([*map(str, _roots(home))])} "
        "cannot be written to; set VECFERRY_HOME"
    )


def discard(folder: Path, lock: int) -> None:
    """Removes a folder of this process, and gives its lock back."""
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
