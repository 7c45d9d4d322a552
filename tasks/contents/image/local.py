"""Files below a directory of this machine."""

import errno
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property

from tasks.base.errors import FatalError
from tasks.base.words import counted
from tasks.contents.image.patience import Later, Patience
from tasks.contents.image.references import shown
from tasks.embedders.interface import RowError

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO}


@dataclass(frozen=True)
class Directory:
    """A reference is a path relative to ``root``, or one that lies in it, also as a file:// URL; with links followed,
    it must not lead out of it."""

    root: str
    max_bytes: int
    patience: Patience = field(default_factory=Patience)

    @cached_property
    def _base(self) -> str:
        """Where it really is. An unmounted disk is no million missing files."""
        if not os.path.isdir(self.root):
            raise FatalError(f"images.root: there is no directory {self.root}; mount it, or name another")
        return os.path.realpath(self.root)

    def host(self, reference: str) -> str:
        return self.root

    def read(self, reference: str, once: bool = False) -> bytes | RowError:
        base, name = self._base, shown(reference)
        path = os.path.realpath(os.path.join(base, reference.removeprefix("file://")))
        if os.path.commonpath([base, path]) != base:
            return RowError("escapes", f"{name} leads out of {self.root}")
        return self.patience.read(name, lambda: self._attempt(name, path), once)

    def _attempt(self, name: str, path: str) -> bytes | RowError | Later:
        try:
            # Resolved already: a link now is one that was put there since. Opening a pipe must not wait for its writer.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            return self._refusal(name, error)
        try:
            return self._contents(name, handle)
        except OSError as error:
            return self._refusal(name, error)
        finally:
            os.close(handle)

    def _contents(self, name: str, handle: int) -> bytes | RowError:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return RowError("missing", f"{name} is not a file")
        if status.st_size > self.max_bytes:
            return too_large(name, status.st_size, self.max_bytes)
        parts, size = list[bytes](), 0
        while size <= self.max_bytes and (part := os.read(handle, max(1 << 16, status.st_size + 1 - size))):
            parts.append(part)
            size += len(part)
        return b"".join(parts) if size <= self.max_bytes else too_large(name, size, self.max_bytes)

    def _refusal(self, name: str, error: OSError) -> RowError | Later:
        if error.errno in _MISSING:
            if not os.path.isdir(self.root):
                raise FatalError(f"images.root: {self.root} is gone; mount it again")
            return RowError("missing", f"there is no file {name} in {self.root}")
        if error.errno == errno.ELOOP:
            return RowError("escapes", f"{name} is a link that leads nowhere, or was put there just now")
        if isinstance(error, PermissionError):
            return RowError("denied", f"{name} may not be read: {error.strerror}")
        return Later(error.strerror or repr(error))

    def stop(self) -> None:
        self.patience.stopped.set()

    def close(self) -> None:
        self.stop()


def too_large(name: str, size: int, most: int) -> RowError:
    """Of so many bytes at least."""
    return RowError(
        "too_large", f"{name} has {counted(size, 'byte')}, more than the {counted(most, 'byte')} of images.max_bytes"
    )
