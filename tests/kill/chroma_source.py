"""A Chroma directory that a killed run copies from."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tests.helpers.data import records_of


@dataclass(frozen=True)
class Source:
    """A Chroma directory that can be put back, and changed, between processes; never opened by this one."""

    path: Path
    before: Path
    after: Path

    def reset(self) -> None:
        self._become(self.before)

    def change(self) -> None:
        self._become(self.after)

    def _become(self, kept: Path) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(kept, self.path)


def make_source(folder: Path, rows: int, dimensions: int) -> Source:
    """Two collections, and the same after inserts, updates and deletes."""
    source = Source(folder / "chroma", folder / "before", folder / "after")
    store = chroma.create_directory(str(source.before))
    for name, count, width, metric in (("docs", rows, dimensions, "cosine"), ("notes", rows // 10, 8, "l2")):
        store.create(Collection(name, "", 0, width, metric))  # type: ignore[arg-type]
        store.write(name, records_of(count, width))
    shutil.copytree(source.before, source.after)
    store = chroma.connect(path=str(source.after))
    store.write("docs", records_of(rows // 8, dimensions, start=rows))
    store.write("docs", records_of(rows // 8, dimensions, start=5, seed=9))
    store.delete("docs", [f"row-{i:07d}" for i in range(rows // 2, rows // 2 + rows // 8)])
    store.delete("notes", ["row-0000003"])
    return source
