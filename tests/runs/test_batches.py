"""The Parquet dataset of a snapshot: what is read is what was written, or it is named."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.base.errors import UsageError
from tasks.runs import dataset
from tasks.runs.dataset import ChecksumError, Part
from tasks.stores.interface import records
from tasks.stores.records import with_hash
from tests.helpers.data import records_of


def table(count: int = 30) -> pa.Table:
    return with_hash(pa.Table.from_batches([records_of(count)]))


def test_a_part_comes_back_whole(tmp_path: Path) -> None:
    """Nulls, empty strings, vectors and hashes are those that were written, and the part says what it is."""
    part = dataset.write_part(str(tmp_path), "000-docs/part-00003.parquet", 3, 0, table())
    assert (part.batch, part.target, part.rows) == (3, 0, 30)
    assert part.bytes == (tmp_path / part.path).stat().st_size
    assert dataset.read_part(str(tmp_path), part).equals(table())
    assert dataset.read_part(str(tmp_path), part, embeddings=False).equals(table().drop_columns("embedding"))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["part-00003.parquet"], (
        "nothing half-written is left"
    )


def test_a_part_without_rows_or_vectors(tmp_path: Path) -> None:
    """An empty part, and one whose rows have no vector, survive with their schema."""
    none = with_hash(pa.Table.from_pylist([{"id": "a"}], records(None)))
    for rows in (table(0), none, none.slice(0, 0)):
        part = dataset.write_part(str(tmp_path), "part.parquet", 0, 0, rows)
        assert dataset.read_part(str(tmp_path), part).equals(rows)


def test_equal_rows_have_equal_bytes(tmp_path: Path) -> None:
    """Writing the same rows again gives the same checksum, so that a resumed snapshot is the same one."""
    parts = [dataset.write_part(str(tmp_path), name, 0, 0, table()) for name in ("a", "b")]
    assert parts[0].sha256 == parts[1].sha256


def test_a_changed_part_is_named(tmp_path: Path) -> None:
    """One flipped bit is an error that names the batch, the file and the next step, though Parquet reads it well."""
    part = dataset.write_part(str(tmp_path), "000-docs/part-00007.parquet", 7, 0, table())
    path = tmp_path / part.path
    changed = table().set_column(0, "id", table().column("id").take(pa.array(range(29, -1, -1))))
    path.write_bytes(dataset.encode(changed))
    assert pq.read_table(path).num_rows == 30
    with pytest.raises(ChecksumError, match=r"batch 7: the SHA-256 of .*part-00007\.parquet.*start a new run"):
        dataset.read_part(str(tmp_path), part)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    """A part that was deleted is an error that names the batch, the file and the next step."""
    part = Part(5, 0, "000-docs/part-00005.parquet", 1, "0" * 64, 1)
    with pytest.raises(ChecksumError, match=r"batch 5: .*part-00005\.parquet is gone.*start a new run"):
        dataset.read_part(str(tmp_path), part)


def test_the_manifest_says_what_was_written(tmp_path: Path) -> None:
    """Parts come back in order, with their sum of rows and what the caller says of the source."""
    parts = [dataset.write_part(str(tmp_path), f"000-docs/part-{n:05d}.parquet", n, 0, table(n)) for n in (1, 2, 3)]
    dataset.write_manifest(str(tmp_path), {"run_id": "r", "source": {"store": "chroma"}}, parts)
    content, listed = dataset.read_manifest(str(tmp_path))
    assert listed == parts
    assert (content["version"], content["rows"], content["run_id"]) == (dataset.MANIFEST_VERSION, 6, "r")
    assert content["source"] == {"store": "chroma"}


def test_an_unfinished_snapshot_is_no_snapshot(tmp_path: Path) -> None:
    """Without a manifest there is nothing to restore, and the message says what to do."""
    with pytest.raises(UsageError, match=r"no finished snapshot .*run the migration first"):
        dataset.read_manifest(str(tmp_path))


@pytest.mark.parametrize("count", [0, 1, 6, 7, 20])
def test_a_batch_reads_its_own_ids(tmp_path: Path, count: int) -> None:
    """The listing is cut into row groups, one a batch, which together are the listing."""
    path, ids = str(tmp_path / "ids.parquet"), pa.array([f"it's {i}\n" for i in range(count)], pa.string())
    dataset.write_ids(path, ids, 6)
    assert dataset.read_ids(path).equals(ids)
    groups = [dataset.read_ids(path, g).to_pylist() for g in range(-(-count // 6))]
    assert [i for group in groups for i in group] == ids.to_pylist()
    assert [len(g) for g in groups[:-1]] == [6] * max(0, len(groups) - 1)


def test_folders_sort_by_target() -> None:
    """A target's folder is its number and its table's name."""
    assert dataset.folder(7, "docs") == "007-docs"
