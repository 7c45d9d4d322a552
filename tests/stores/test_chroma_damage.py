"""A damaged Chroma directory gives an error that names the collection, or right data, and never a smaller migration."""

import os
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tasks.base.errors import UsageError
from tasks.stores.chroma import private_copy, segment as chroma_segment, store as chroma
from tasks.stores.interface import vectors
from tests.helpers.chroma_directories import VERSIONS, Old, unpacked

NAME = "old-cosine"


@pytest.fixture(autouse=True)
def _nobody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_copy, "WRITTEN_SECONDS", 0)


def segment(path: Path) -> Path:
    """The folder with the vectors of the collection that is damaged."""
    query = (
        "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection WHERE c.name = ? AND s.scope = 'VECTOR'"
    )
    with closing(sqlite3.connect(path / "chroma.sqlite3")) as database:
        return path / str(database.execute(query, (NAME,)).fetchone()[0])


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = segment(path) / name
        os.truncate(file, int(file.stat().st_size * share))

    return damage


def overwrite(name: str, at: int, data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with (segment(path) / name).open("r+b") as handle:
            handle.seek(at)
            handle.write(data)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (segment(path) / name).unlink()


def lose_the_segment(path: Path) -> None:
    for file in segment(path).iterdir():
        file.unlink()
    segment(path).rmdir()


def lose_records(path: Path) -> None:
    with closing(sqlite3.connect(path / "chroma.sqlite3")) as database, database:
        database.execute("DELETE FROM embeddings WHERE embedding_id IN ('r7', 'r8', 'r9')")


def lose_one_vector(path: Path) -> None:
    file = segment(path) / "index_metadata.pickle"
    ids = pickle.loads(file.read_bytes())
    del ids["label_to_id"][ids["id_to_label"].pop("r7")]
    file.write_bytes(pickle.dumps(ids, protocol=3))


HEADER = bytes(100)
WRONG_NEIGHBOURS = b"\x10\x00\x00\x00" + b"\x7f" * 64


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_the_segment, r"of \d+ records (is|are) no longer in the index and (has|have) no vector"),
        (remove("index_metadata.pickle"), r"of \d+ records (is|are) no longer in the index"),
        (cut("index_metadata.pickle", 0), r"index_metadata\.pickle cannot be read \(EOFError"),
        (overwrite("index_metadata.pickle", 0, b"cos\nsystem\n(S'true'\ntR."), "it names os.system"),
        (lose_one_vector, r"1 \('r7'\) of \d+ records (is|are) no longer in the index"),
        (lose_records, r"3 \('r7', 'r8', 'r9'\) of \d+ vectors in the index (belongs|belong) to no record"),
        (remove("data_level0.bin"), r"data_level0\.bin is missing"),
        (cut("data_level0.bin", 0.01), r"data_level0\.bin is cut off"),
        (overwrite("data_level0.bin", 0, bytes(4_000)), r"data_level0\.bin lacks \d+ of \d+ vectors"),
        (overwrite("data_level0.bin", 0, WRONG_NEIGHBOURS), r"data_level0\.bin names neighbours that do not exist"),
        (overwrite("header.bin", 0, HEADER), r"header\.bin does not describe a vector index of this collection"),
        (cut("header.bin", 0.5), r"header\.bin is cut off"),
        (cut("link_lists.bin", 0), r"link_lists\.bin is cut off"),
        (cut("length.bin", 0), r"length\.bin is cut off"),
    ],
    ids=lambda of: None if callable(of) else of[:40],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    """What is damaged is message in one line before Chroma loads it, and the other collections can be read."""
    old = unpacked("1.4.1", tmp_path)
    damage(old.path)
    home = str(tmp_path / "home")
    with pytest.raises(UsageError, match=f"is damaged. {NAME}: .*{message}") as raised:
        chroma.read(path=str(old.path), home=home, collections=[NAME])
    assert "\n" not in str(raised.value)
    assert not Path(home).exists()
    if damage is not lose_records:
        assert len(chroma.read(path=str(old.path), home=home, collections=["old-l2"]).records("old-l2").ids())


def right(old: Old, home: Path) -> None:
    """Asserts that every vector of every collection is read as it was written."""
    store = chroma.read(path=str(old.path), home=str(home))
    for name, of in old.truth.items():
        fetched = store.records(name).fetch(store.records(name).ids().to_pylist())
        wanted = np.array([of["rows"][i]["embedding"] for i in fetched.column("id").to_pylist()], np.float32)
        assert fetched.num_rows == len(of["rows"])
        np.testing.assert_allclose(vectors(fetched), wanted.reshape(vectors(fetched).shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_whole_directories_are_read(tmp_path: Path, version: str) -> None:
    """Of every version: a segment in its files, one that is only in the queue, deletes and records that came again."""
    right(unpacked(version, tmp_path / "old"), tmp_path / "home")


def test_what_the_queue_still_has_is_not_lost(tmp_path: Path) -> None:
    """0.4 kept everything in its queue, from which Chroma rebuilds a missing segment: what it reads then is right."""
    old = unpacked("0.4.24", tmp_path / "old")
    lose_the_segment(old.path)
    right(old, tmp_path / "home")


def test_a_big_index_is_looked_through_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few vectors are in memory at a time, the last of them is looked at."""
    old = unpacked("1.4.1", tmp_path)
    monkeypatch.setattr(chroma_segment, "AT_ONCE", 500)
    chosen = frozenset({segment(old.path).name})
    assert chroma_segment.problems(old.path, chosen) == []
    element = chroma_segment._header((segment(old.path) / "header.bin").read_bytes(), 6)
    last = element.element_bytes * (element.elements - 1)
    overwrite("data_level0.bin", last, WRONG_NEIGHBOURS)(old.path)
    assert chroma_segment.problems(old.path, chosen) == [f"{NAME}: data_level0.bin names neighbours that do not exist"]
