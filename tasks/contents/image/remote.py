"""Files behind any URL that fsspec has a file system for: s3://bucket/photos, gs://bucket, sftp://host/photos."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import fsspec

from tasks.base.errors import FatalError
from tasks.contents.image.local import too_large
from tasks.contents.image.patience import Later, Patience
from tasks.contents.image.references import shown
from tasks.embedders.interface import RowError


@dataclass(frozen=True)
class Remote:
    """A reference is a path relative to ``root``, or the URL of a file below it. Credentials are those that the file system's own
    library finds in the environment."""

    root: str
    max_bytes: int
    patience: Patience = field(default_factory=Patience)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system, and the root's path in it."""
        try:
            system, path = fsspec.core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:  # what speaks this protocol is not installed, or nothing does
            raise FatalError(f"images.root: {self.root}: {error}") from error
        return system, str(path).rstrip("/")

    def host(self, reference: str) -> str:
        return self.root

    def read(self, reference: str, once: bool = False) -> bytes | RowError:
        name, root = shown(reference), self.root.rstrip("/") + "/"
        path = reference.removeprefix(root)
        if "://" in path or path.startswith("/") or ".." in path.split("/"):
            return RowError("escapes", f"{name} leads out of {self.root}")
        return self.patience.read(name, lambda: self._attempt(name, path), once)

    def _attempt(self, name: str, path: str) -> bytes | RowError | Later:
        system, base = self._place
        try:
            data: bytes = system.cat_file(f"{base}/{path}", start=0, end=self.max_bytes + 1)
        except FileNotFoundError:
            return self._missing(name)
        except IsADirectoryError:
            return RowError("missing", f"{name} is not a file")
        except PermissionError as error:
            return RowError("denied", f"{name} may not be read: {_line(error)}")
        except OSError as error:  # a range of an object without bytes is an error to some stores
            return b"" if self._is_empty(f"{base}/{path}") else Later(_line(error))
        except Exception as error:  # of the store's own library, such as that it has no credentials
            raise FatalError(f"images.root: {self.root}: {type(error).__name__}: {_line(error)}") from error
        return data if len(data) <= self.max_bytes else too_large(name, len(data), self.max_bytes)

    def _is_empty(self, path: str) -> bool:
        system, _ = self._place
        try:
            return bool(system.size(path) == 0)
        except OSError:
            return False  # the first error is told

    def _missing(self, name: str) -> RowError:
        if not self._root_exists:
            raise FatalError(f"images.root: there is nothing at {self.root}")
        return RowError("missing", f"there is no file {name} at {self.root}")

    @cached_property
    def _root_exists(self) -> bool:
        system, base = self._place
        return not base or bool(system.exists(base))

    def stop(self) -> None:
        self.patience.stopped.set()

    def close(self) -> None:
        self.stop()


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
