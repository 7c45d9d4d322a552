"""What pgvector needs to know: types, operators, index limits, memory, and the binary wire format.

Limits are pgvector 0.8's (README, "HNSW" and "Half-Precision Indexing").
"""

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.stores.interface import Metric

ADVISED = (0, 8, 4)
"""CVE-2026-3172 (parallel HNSW builds, 0.6.0–0.8.1) and the vacuum corruption of 0.8.3 are fixed from here on."""
OLDEST = (0, 8, 0)
"""The first with iterative index scans, without which a filtered search finds too little."""
INDEX_LIMIT = {"vector": 2000, "halfvec": 4000}
HALF_MAX = 65504.0
"""The largest finite half-precision number."""

OPERATOR: dict[Metric, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
WIRE = {"vector": ">f4", "halfvec": ">f2"}
"""numpy's format of a component in vector_send."""
_NULL = struct.pack(">i", -1)

MAX_TUPLE, USUAL_TARGET = 8160, 2032
"""Bytes of the largest row on a page of 8 kB, and of the row beyond which PostgreSQL moves values out of it
(heaptoast.h: MaxHeapTupleSize, TOAST_TUPLE_TARGET)."""

VectorType = Literal["vector", "halfvec"]


@dataclass(frozen=True)
class Layout:
    """How one column of vectors is stored and indexed."""

    type: VectorType
    dimensions: int | None
    metric: Metric

    @property
    def index_type(self) -> VectorType | None:
        """The type that the HNSW index is built on, or None where pgvector has no index for so many dimensions."""
        if not self.dimensions:
            return None
        if self.dimensions <= INDEX_LIMIT[self.type]:
            return self.type
        return "halfvec" if self.dimensions <= INDEX_LIMIT["halfvec"] else None

    @property
    def opclass(self) -> str:
        return f"{self.index_type}_{self.metric}_ops"

    def operand(self, column: str) -> str:
        """The SQL expression that the index is on, and that a query must order by to use it; ``column`` is quoted."""
        return f"{column}::halfvec({self.dimensions})" if self.index_type != self.type else column

    @property
    def probe(self) -> str:
        """The SQL type of the query vector."""
        return f"{self.index_type or self.type}({self.dimensions})" if self.dimensions else self.type

    @property
    def row_bytes(self) -> int:
        """Of a vector with its share of the HNSW graph on disk."""
        width = vector_bytes(self.dimensions or 0, self.type)
        return width + (width + 300 if self.index_type else 0)

    @property
    def tolerance(self) -> float:
        """How far a carried vector may lie from its source, relative to its norm. Chroma's cosine collections hand
        out vectors that are off by 1e-6 (normalized on the way in); a half has 11 bits."""
        return 2e-3 if self.type == "halfvec" else 1e-5


def tuple_target(layout: Layout, other: int) -> int:
    """The toast_tuple_target of a table of vectors with ``other`` bytes a row beside.

    PostgreSQL cuts what is larger into pieces of 2 kB in another table, each with an index entry. In its row, a vector of
    1536 dimensions takes the same space, is written a third faster and read in less than half the time. Where whole rows
    would leave much of a page empty, it stays as PostgreSQL has it.
    """
    row = vector_bytes(layout.dimensions or 0, layout.type) + other
    wasted = MAX_TUPLE % row if row <= MAX_TUPLE else MAX_TUPLE
    return MAX_TUPLE if wasted <= 0.3 * MAX_TUPLE else USUAL_TARGET


def vector_bytes(dimensions: int, kind: VectorType) -> int:
    """Of one vector (vector.h, halfvec.h)."""
    return 8 + dimensions * np.dtype(WIRE[kind]).itemsize


def graph_bytes(rows: int, dimensions: int, m: int, index_type: VectorType) -> int:
    """Memory an HNSW build wants, in bytes, so that the graph stays in maintenance_work_mem (hnswbuild.c, hnsw.h):
    per element its struct (≈ 120 B), the vector, 2m neighbours of 16 B on the ground level and m on each level above,
    of which there are 1/(m − 1) on average; 10 % for the allocator."""
    element = 120 + vector_bytes(dimensions, index_type) + 16 * (2 * m + m / max(1, m - 1)) + 64
    return int(rows * element * 1.1)


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
    return head + b"".join(row.tobytes() if there else _NULL for row, there in zip(whole, present, strict=True))


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
