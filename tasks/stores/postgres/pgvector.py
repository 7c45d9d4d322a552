"""What pgvector needs to know: types, operators, index limits and memory.

Limits are pgvector 0.8's (README, "HNSW" and "Half-Precision Indexing").
"""

from dataclasses import dataclass
from typing import Literal

from tasks.stores.interface import Metric

ADVISED = (0, 8, 4)
"""CVE-2026-3172 (parallel HNSW builds, 0.6.0–0.8.1) and the vacuum corruption of 0.8.3 are fixed from here on."""
OLDEST = (0, 8, 0)
"""The first with iterative index scans, without which a filtered search finds too little."""
INDEX_LIMIT = {"vector": 2000, "halfvec": 4000}
HALF_MAX = 65504.0
"""The largest finite half-precision number."""

OPERATOR: dict[Metric, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
COMPONENT_BYTES = {"vector": 4, "halfvec": 2}

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

    @property
    def distance_tolerance(self) -> float:
        """As ``Records`` has it."""
        return 5e-3 if self.index_type == "halfvec" else 1e-4


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
    return 8 + dimensions * COMPONENT_BYTES[kind]


def graph_bytes(rows: int, dimensions: int, m: int, index_type: VectorType) -> int:
    """Memory an HNSW build wants, in bytes, so that the graph stays in maintenance_work_mem (hnswbuild.c, hnsw.h):
    per element its struct (≈ 120 B), the vector, 2m neighbours of 16 B on the ground level and m on each level above,
    of which there are 1/(m − 1) on average; 10 % for the allocator."""
    element = 120 + vector_bytes(dimensions, index_type) + 16 * (2 * m + m / max(1, m - 1)) + 64
    return int(rows * element * 1.1)
