"""Directories that old versions of Chroma wrote, from the archives in tests/fixtures/chroma."""

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "fixtures" / "chroma"
VERSIONS = sorted(p.name.removesuffix(".tar.xz") for p in FIXTURES.glob("*.tar.xz"))


@dataclass(frozen=True)
class Old:
    """One directory, unpacked."""

    path: Path
    truth: dict[str, dict[str, Any]]
    """Collection → its metric, and its rows by id: embedding, document, metadata."""


def unpacked(version: str, folder: Path) -> Old:
    """What that version wrote, unpacked into ``folder``."""
    with tarfile.open(FIXTURES / f"{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return Old(folder / "chroma", json.loads((folder / "truth.json").read_text()))


def fingerprint(path: Path) -> dict[str, Any]:
    """SHA-256 of every file below ``path``, and when each folder was last written into."""
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else p.stat().st_mtime_ns
        for p in [path, *sorted(path.rglob("*"))]
    }
