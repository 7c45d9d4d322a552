"""PostgreSQL's binary formats: vectors as pgvector sends them (vector_send), and rows for COPY (its documentation, "Binary
Format"), made block by block.

Row by row, psycopg sends 32 kB at a time and gives the interpreter's lock away each time: with a second thread at work,
waiting for it took longer than sending.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from uuid import UUID

import numpy as np
import pyarrow as pa
from psycopg import sql

from tasks.stores.interface import AT_ONCE, Turn, vectors
from tasks.stores.postgres.connection import Connection, Packed
from tasks.stores.postgres.pgvector import VectorType

ROWS = 2_000
"""Rows that are laid out at once."""
BLOCK, SHORT = 1 << 20, 1 << 17
"""Bytes sent at once: for speed, and for a server that is at work on them for a millisecond or so."""
WIRE = {"vector": ">f4", "halfvec": ">f2"}
"""numpy's format of a component."""
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = struct.pack(">i", -1)

Value = bytes | memoryview | None
"""In the binary format of its type (what its typsend function sends)."""

KEYS: dict[str, Callable[[str], bytes]] = {
    "smallint": lambda name: int(name).to_bytes(2, "big", signed=True),
    "integer": lambda name: int(name).to_bytes(4, "big", signed=True),
    "bigint": lambda name: int(name).to_bytes(8, "big", signed=True),
    "uuid": lambda name: UUID(name).bytes,
    "text": str.encode,
    "character varying": str.encode,
}
"""SQL type → what makes a value of its text."""


def copy_rows(
    connection: Connection, into: sql.Composable, columns: Sequence[Iterable[Value]], turn: Turn = AT_ONCE
) -> None:
    """Sends rows, given by their columns, to ``into``: a table with the list of its columns. No more than a block is held at
    once, and it rests between blocks where way is given."""
    size = SHORT if turn.gives_way else BLOCK
    with connection.cursor() as cursor, cursor.copy(copy_statement(into)) as copy:
        for block in _blocks(columns, size):
            copy.write(block)
            if turn.gives_way:
                turn.rest()


def copy_records(
    connection: Connection, into: sql.Composable, page: pa.Table, kind: VectorType, turn: Turn = AT_ONCE
) -> None:
    """Sends records with their ``content_hash`` column to a table of ours. metadata is JSON text."""
    metadata = [None if text is None else b"\x01" + text.encode() for text in page.column("metadata").to_pylist()]
    columns = [
        _texts(page, "id"),
        _texts(page, "document"),
        metadata,
        _texts(page, "uri"),
        vector_values(page, kind),
        page.column("content_hash").to_pylist(),
    ]
    copy_rows(connection, records_into(into), columns, turn)


def records_into(table: sql.Composable) -> sql.Composed:
    """A table of ours with the list of the columns that ``copy_records`` fills."""
    return sql.SQL("{} (id, document, metadata, uri, embedding, content_hash)").format(table)


def copy_statement(into: sql.Composable) -> sql.Composed:
    """What rows are sent with. It stands in no file of sql/: nobody could send them by hand, being binary."""
    return sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(into)


def key_columns(kinds: Sequence[str], names: Sequence[str]) -> list[list[Value]]:
    """The columns of a key, of types of KEYS, of its rows' names: the text of the one column, or a JSON array of texts."""
    parts = [names] if len(kinds) == 1 else zip(*map(json.loads, names), strict=True)
    return [list(map(KEYS[kind], part)) for kind, part in zip(kinds, parts, strict=True)]


def vector_values(page: pa.Table, kind: VectorType) -> list[Value]:
    """The embeddings of a page; None where there is none."""
    rows = pack(vectors(page), kind)
    if not page.column("embedding").null_count:
        return [*rows]
    present = page.column("embedding").is_valid().to_pylist()
    return [row if there else None for row, there in zip(rows, present, strict=True)]


def pack(matrix: np.ndarray, kind: VectorType) -> list[memoryview]:
    """pgvector's binary format (vector_send): int16 dimensions, int16 unused, big-endian components; one a row, all in
    one buffer."""
    whole = _wire(matrix, kind, [(matrix.shape[1], ">u2"), (0, ">u2")])
    data, width = memoryview(whole.view(np.uint8).data), whole.itemsize
    return [data[at : at + width] for at in range(0, len(data), width)]


def pack_array(matrix: np.ndarray, present: np.ndarray, kind: VectorType, oid: int) -> bytes:
    """An array of vectors in PostgreSQL's binary format (array_send): number of dimensions, whether it has nulls, the
    element's type, length, lower bound; then the length of each element, -1 for null, and its bytes."""
    size = 4 + matrix.shape[1] * np.dtype(WIRE[kind]).itemsize
    whole = _wire(matrix, kind, [(size, ">u4"), (matrix.shape[1], ">u2"), (0, ">u2")])
    head = struct.pack(">iiIii", 1, not present.all(), oid, len(matrix), 1)
    if present.all():
        return head + whole.tobytes()
    return head + b"".join(row.tobytes() if there else NULL for row, there in zip(whole, present, strict=True))


def vector_array(connection: Connection, page: pa.Table, kind: VectorType) -> Packed:
    """The embeddings of a page as one array, null where there is none."""
    present = np.asarray(page.column("embedding").is_valid())
    return Packed(pack_array(vectors(page), present, kind, connection.adapters.types[kind].oid))


def unpack(rows: list[bytes], kind: VectorType) -> np.ndarray:
    """The float32[n, d] that ``pack`` packed."""
    whole = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
    return np.ascontiguousarray(whole[:, 4:]).view(WIRE[kind]).astype(np.float32)


def _wire(matrix: np.ndarray, kind: VectorType, lead: list[tuple[int, str]]) -> np.ndarray:
    """One item a row: the leading integers, the same for every row, then the components."""
    names = [f"lead{at}" for at in range(len(lead))]
    formats = [(name, width) for name, (_, width) in zip(names, lead, strict=True)]
    whole = np.empty(len(matrix), [*formats, ("components", WIRE[kind], (matrix.shape[1],))])
    for name, (value, _) in zip(names, lead, strict=True):
        whole[name] = value
    whole["components"] = matrix
    return whole


def _texts(page: pa.Table, name: str) -> list[Value]:
    return [None if text is None else text.encode() for text in page.column(name).to_pylist()]


def _blocks(columns: Sequence[Iterable[Value]], size: int) -> Iterator[bytes]:
    """The rows in blocks of about ``size`` bytes, or of one row where that is longer."""
    rest, fields, stride = [iter(column) for column in columns], struct.pack(">h", len(columns)), 1 + 2 * len(columns)
    yield HEADER
    while any(page := [list(islice(column, ROWS)) for column in rest]):
        count = len(page[0])
        if any(len(values) != count for values in page):
            raise ValueError("the columns are of different lengths")
        pieces: list[bytes | memoryview] = [fields] * (count * stride)
        length = 0
        for at, values in enumerate(page):
            lengths = [-1 if value is None else len(value) for value in values]
            packed = struct.pack(f">{count}i", *lengths)
            pieces[1 + 2 * at :: stride] = [packed[n : n + 4] for n in range(0, 4 * count, 4)]
            pieces[2 + 2 * at :: stride] = [b"" if value is None else value for value in values]
            length += sum(lengths)
        step = max(1, size * count // max(1, length)) * stride
        for start in range(0, len(pieces), step):
            yield b"".join(pieces[start : start + step])
    yield TRAILER
