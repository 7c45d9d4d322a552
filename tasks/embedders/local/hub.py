"""Models of the Hugging Face hub: which commit a name means, and whether there is room for what is still to be downloaded.

A branch moves, and vectors from before and after are not of one space; so a model is known by its commit.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.base.errors import UsageError
from tasks.embedders.naming import ModelName
from tasks.embedders.weights import beside

_FORMATS = (".safetensors", ".bin", ".pth", ".pt", ".npz", ".h5", ".msgpack", ".ot")
"""Suffixes of weights; where a model is there in several, the first of them is loaded."""
_SPARE = 256 * 2**20
"""Bytes that a disk is not filled up to."""


@dataclass(frozen=True)
class Repository:
    """A model at the hub, as a name asks for it."""

    name: ModelName
    place: str
    """ORGANISATION/MODEL"""
    cache: str | None = None
    """The directory that keeps what is downloaded; None: the one of the hub's own client."""
    size: int | None = None
    """Bytes of the weights, where they are known without asking."""

    @property
    def kept_in(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache or constants.HF_HUB_CACHE)

    def commit(self) -> str:
        """The commit, by the hub or, where that cannot be asked, by the local cache. Raises UsageError."""
        from huggingface_hub import errors, resolve_revision

        wanted = self.name.revision or None
        try:
            return str(resolve_revision(self.place, revision=wanted, cache_dir=self.cache).resolved)
        except errors.RevisionNotFoundError:
            reason = f"the hub's {self.place} has no revision {self.name.revision!r}"
        except errors.RepositoryNotFoundError:
            reason = f"the hub has no model {self.place!r}, or shows it only with a token in HF_TOKEN"
        except errors.RevisionResolutionError as error:
            raise self.not_to_be_had(error.__cause__ or error) from error
        except Exception as error:  # noqa: BLE001  raised below
            reason = line(error)
        raise UsageError(f"embedder {self.name}: {reason}. A directory is written {self.name.provider}/./DIRECTORY")

    def check_room(self, commit: str) -> None:
        """Raises UsageError where what is still to be downloaded of that commit does not fit the disk, and where it cannot
        be downloaded at all."""
        from huggingface_hub import HfApi, try_to_load_from_cache

        def is_kept(file: str) -> bool:
            return isinstance(try_to_load_from_cache(self.place, file, cache_dir=self.cache, revision=commit), str)

        kept = self.kept_in / f"models--{self.place.replace('/', '--')}" / "snapshots" / commit
        if any(file.suffix in _FORMATS for file in kept.rglob("*")):
            return  # a model without a network is not asked about
        try:
            info: Any = HfApi().model_info(self.place, revision=commit, files_metadata=True)
        except Exception as error:
            raise self.not_to_be_had(error) from error
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        missing = sum(size for file, size in needed(sizes).items() if not is_kept(file))
        free = shutil.disk_usage(_existing(self.kept_in)).free
        if missing + _SPARE > free:
            raise UsageError(
                f"embedder {self.name}: {megabytes(missing)} of {self.place} are to be downloaded into {self.kept_in}, "
                f"where {megabytes(free)} are free. Make room, or set HF_HOME to a directory on another disk"
            )

    def not_to_be_had(self, error: BaseException) -> UsageError:
        """Why it is not there, and the way to have it."""
        about = f" (about {megabytes(self.size)})" if self.size else ""
        folder = self.place.rpartition("/")[2]
        return UsageError(
            f"embedder {self.name}: {self.place} is not in the local cache, {self.kept_in}, and the hub cannot be asked for it "
            f"({line(error)}). Where there is a network: hf download {self.place} --local-dir {folder}{about}; here a directory "
            f"is written {self.name.provider}/./{folder}"
        )


def needed(sizes: Mapping[str, int]) -> dict[str, int]:
    """Of the files of a model, the bytes of those that are loaded: the weights in one format alone, and nothing beside them."""
    files = {file: size for file, size in sizes.items() if not beside(file)}
    formats = [suffix for suffix in _FORMATS if any(file.endswith(suffix) for file in files)]
    return {file: size for file, size in files.items() if not file.endswith(tuple(formats[1:]))}


def megabytes(size: float) -> str:
    """780 MB, 1.2 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def line(error: BaseException) -> str:
    """The first line of a foreign error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _existing(path: Path) -> Path:
    return next(folder for folder in _upward(path.absolute()) if folder.exists())


def _upward(path: Path) -> Iterable[Path]:
    return (path, *path.parents)
