"""Blocks of PostgreSQL's binary COPY (documentation of COPY, "Binary Format") made as arrays, for rows of fixed width.

Row by row, psycopg sends 32 kB at a time and gives the interpreter's lock away each time: with a second thread at work,
waiting for it took longer than sending.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np

from tasks.stores.postgres.pgvector import WIRE, VectorType

BLOCK, SHORT = 1 << 20, 1 << 17
"""Bytes sent at once: for speed, and for a server that is at work on them for less than a millisecond."""
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

Column = tuple[str, np.ndarray]
"""numpy's format of a value, or of an array of them, as it is on the wire; and the values."""


def _whole(size: str) -> Callable[[Sequence[str]], Column]:
    return lambda names: (size, np.array(list(map(int, names)), np.int64))


FIXED: dict[str, Callable[[Sequence[str]], Column]] = {
    "smallint": _whole(">i2"),
    "integer": _whole(">i4"),
    "bigint": _whole(">i8"),
    "uuid": lambda names: binary([UUID(name).bytes for name in names]),
}
"""Types of fixed width, and what makes a column of their text."""


def binary(values: Sequence[bytes]) -> Column:
    """A bytea column of values that are all of one length."""
    width = f"V{len(values[0])}"
    return width, np.frombuffer(b"".join(values), width)


def blocks(
    columns: Sequence[Column], matrix: np.ndarray, kind: VectorType, size: int = BLOCK
) -> Iterator[memoryview | bytes]:
    """What COPY … FROM STDIN (FORMAT BINARY) takes for these columns and a last one of vectors, float32[rows, d]; a
    block has ``size`` bytes or one row. The memory is that of the rows once more."""
    layout: list[tuple[Any, ...]] = [("fields", ">i2")]
    for at, (width, _) in enumerate(columns):
        layout += [(f"size{at}", ">i4"), (f"value{at}", width)]
    dimensions = matrix.shape[1]
    layout += [("size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("vector", WIRE[kind], (dimensions,))]
    rows = np.zeros(len(matrix), layout)
    rows["fields"] = len(columns) + 1
    for at, (width, values) in enumerate(columns):
        rows[f"size{at}"], rows[f"value{at}"] = np.dtype(width).itemsize, values
    rows["size"] = 4 + dimensions * np.dtype(WIRE[kind]).itemsize
    rows["dimensions"], rows["vector"] = dimensions, matrix
    step = max(1, size // rows.itemsize)
    yield HEADER
    for start in range(0, len(rows), step):
        yield memoryview(rows[start : start + step].view(np.uint8).data)
    yield TRAILER
