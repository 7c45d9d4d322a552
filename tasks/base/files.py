"""Files under VECFERRY_HOME, which is a directory or any fsspec URL. A file is there whole or not at all."""

import os
import uuid
from pathlib import Path
from typing import Any

import fsspec

from tasks.base.errors import FatalError

AT_ONCE = 1 << 18
"""Bytes a write: many kernels take nothing in between, and who waits for this processor may be the database."""
DISK_FULL = {28, 122}  # ENOSPC, EDQUOT


def located(path: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it. What has no ``://`` is a path on this machine, whatever its
    characters: fsspec would take ``::`` for a chain of file systems, and expand ``~``."""
    if "://" not in path:
        return fsspec.filesystem("file"), os.path.abspath(path)
    fs, local = fsspec.core.url_to_fs(path)
    return fs, str(local)


def write(path: str, data: bytes | memoryview) -> None:
    """Puts ``data`` at ``path`` atomically; on a local disk it is on stable storage before it gets its name."""
    fs, local = located(path)
    try:
        fs.makedirs(os.path.dirname(local), exist_ok=True)
        if "file" not in _protocols(fs):
            fs.pipe_file(local, bytes(data))  # object stores publish an object only when it is complete
            return
        part = f"{local}.{uuid.uuid4().hex}.part"
        try:
            with open(part, "wb") as handle:
                for at in range(0, len(data), AT_ONCE):
                    handle.write(memoryview(data)[at : at + AT_ONCE])
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(part, local)
        finally:
            if os.path.exists(part):
                os.unlink(part)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise FatalError(
                f"no space left to write {path}: free some, or point VECFERRY_HOME at a larger disk"
            ) from error
        if isinstance(error, PermissionError):
            raise FatalError(f"no permission to write {path}: check VECFERRY_HOME") from error
        raise


def create(path: str, data: bytes) -> None:
    """Puts ``data`` at ``path`` unless something is there: of several who do it at once on a local disk, the first."""
    fs, local = located(path)
    if "file" not in _protocols(fs):
        if not fs.exists(local):
            write(path, data)
        return
    part = f"{local}.{uuid.uuid4().hex}.part"
    write(part, data)
    try:
        os.link(part, local)
    except FileExistsError:
        return
    finally:
        os.unlink(part)


def append(path: str, data: bytes) -> None:
    """Adds ``data`` to the end of a file in a directory, in one piece whoever else appends to it."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        handle = os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, flags, 0o666)
    try:
        if os.write(handle, data) < len(data):
            raise OSError(f"only part of a line was written to {path}")
    finally:
        os.close(handle)


def read(path: str) -> bytes:
    """The bytes at ``path``. Raises FileNotFoundError."""
    fs, local = located(path)
    data: bytes = fs.cat_file(local)
    return data


def exists(path: str) -> bool:
    """Whether there is a file at ``path``."""
    fs, local = located(path)
    return bool(fs.exists(local))


def open_seekable(path: str) -> Any:
    """A seekable binary handle, so that one row group of a Parquet file can be read."""
    fs, local = located(path)
    return fs.open(local, "rb")


def join(*parts: str) -> str:
    """The path of ``parts``, for directories and URLs alike."""
    return "/".join([parts[0].rstrip("/"), *parts[1:]])


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def clear_partial(folder: str) -> None:
    """Removes what a killed writer left half-written below ``folder``. Call it when nobody writes there."""
    fs, local = located(folder)
    if "file" in _protocols(fs):
        for path in Path(local).rglob("*.part"):
            path.unlink(missing_ok=True)


def names(folder: str) -> list[str]:
    """The files in ``folder``, without those that are being written; none when there is no such folder."""
    fs, local = located(folder)
    fs.invalidate_cache(local)  # others write there too
    if not fs.exists(local):
        return []
    listed = (os.path.basename(path) for path in fs.ls(local, detail=False))
    return sorted(name for name in listed if not name.endswith(".part"))
