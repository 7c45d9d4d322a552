"""The Parquet dataset of a snapshot: one part a batch, with a manifest that holds each part's SHA-256.

runs/RUN/snapshot/manifest.json
runs/RUN/snapshot/000-docs/ids-0.parquet            the listing that the parts were cut from
runs/RUN/snapshot/000-docs/part-00000.parquet       batch 0: id, document, metadata, uri, embedding, content_hash
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.base import files, stored
from tasks.base.errors import UsageError, VecferryError

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Part:
    """One file of the dataset."""

    batch: int
    target: int
    path: str
    """Relative to the snapshot's folder."""
    rows: int
    sha256: str
    bytes: int


class ChecksumError(VecferryError):
    """A part is not what was written."""


def folder(target: int, table: str) -> str:
    """The folder of one target, under the snapshot's."""
    return f"{target:03d}-{table}"


def write_part(root: str, relative: str, batch: int, target: int, table: pa.Table) -> Part:
    """Writes one part and returns what the manifest says of it. ``table`` has the columns of a record and its hash."""
    data = encode(table)
    files.write(files.join(root, relative), data)
    return Part(batch, target, relative, table.num_rows, hashlib.sha256(data).hexdigest(), len(data))


def part_of(noted: Mapping[str, Any]) -> Part:
    """The part that the ledger's line of a finished snapshot batch notes."""
    return Part(**{name: noted[name] for name in Part.__dataclass_fields__})


def read_part(root: str, part: Part, embeddings: bool = True) -> pa.Table:
    """The rows of a part; without their column of embeddings where those are not wanted. Raises ChecksumError when the file
    is missing or differs from its checksum."""
    path = files.join(root, part.path)
    try:
        data = files.read(path)
    except FileNotFoundError as error:
        raise ChecksumError(f"batch {part.batch}: {path} is gone; restore the file, or start a new run") from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ChecksumError(
            f"batch {part.batch}: the SHA-256 of {path} does not match the manifest: the file was changed "
            "after the snapshot; restore the file, or start a new run"
        )
    file = pq.ParquetFile(pa.BufferReader(data))
    return file.read(None if embeddings else [name for name in file.schema_arrow.names if name != "embedding"])


def encode(table: pa.Table) -> bytes:
    """Parquet bytes. Text is compressed; vectors, which do not compress, are neither compressed nor put in a
    dictionary, which makes writing them four times as fast."""
    text = {name: "zstd" for name in table.column_names if name != "embedding"}
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression={**text, "embedding.list.element": "none"},
        use_dictionary=False,
        write_statistics=False,
        row_group_size=max(1, table.num_rows),
    )
    return sink.getvalue()


def write_ids(path: str, ids: pa.Array, rows_per_batch: int) -> None:
    """Keeps a listing, a row group a batch, so that a batch reads its own ids alone."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ids}), sink, compression="zstd", row_group_size=rows_per_batch)
    files.write(path, sink.getvalue())


def read_ids(path: str, row_group: int | None = None) -> pa.Array:
    """The listing, or the ids of its n-th batch."""
    with files.open_seekable(path) as handle:
        file = pq.ParquetFile(handle)
        table = file.read() if row_group is None else file.read_row_group(row_group)
    return table.column("id").combine_chunks()


def write_manifest(root: str, content: dict[str, Any], parts: list[Part]) -> None:
    """Writes what the snapshot is. ``content`` describes its source."""
    listed = [vars(part) for part in parts]
    data = {"version": MANIFEST_VERSION, **content, "rows": sum(p.rows for p in parts), "parts": listed}
    files.write(files.join(root, "manifest.json"), json.dumps(data, indent=1, default=str).encode())


def read_manifest(root: str) -> tuple[dict[str, Any], list[Part]]:
    """What ``write_manifest`` wrote. Raises UsageError when there is no finished snapshot, or one of a later version."""
    try:
        data = json.loads(files.read(files.join(root, "manifest.json")))
    except FileNotFoundError as error:
        raise UsageError(f"{root} holds no finished snapshot (no manifest.json); run the migration first") from error
    if data.get("version", 1) > MANIFEST_VERSION:
        raise UsageError(
            f"the manifest in {root} has version {data['version']}, and this vecferry reads versions up to "
            f"{MANIFEST_VERSION}: install the version of vecferry that made the snapshot"
        )
    return data, [stored.read(Part, part) for part in data["parts"]]
