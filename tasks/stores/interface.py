"""What a store can do, and the shape of what it hands over.

Records travel as Arrow batches of the schema ``records(dimensions)``:

    id         string, never null
    document   string, null is not ''
    metadata   string holding canonical JSON (tasks.stores.canonical), null is not '{}'
    uri        string or null
    embedding  float32[dimensions], null for a record without a vector

and, from a store that keeps several vectors of a record, one more:

    others     the others by name, in canonical JSON as bytes; null for a record that has none
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

Metric = Literal["cosine", "l2", "ip"]
Connect = Callable[[], AbstractContextManager[Any]]
"""Lends a connection to the run's own database, for a source that lies there."""


@dataclass(frozen=True)
class Collection:
    """One collection of a store, as it was when it was looked at."""

    name: str
    identity: str
    """Survives a rename and does not survive a re-creation, where the store has such a thing."""
    count: int
    dimensions: int | None
    """None when no record has a vector."""
    metric: Metric
    m: int = 16
    ef_construction: int = 64
    ef_search: int = 40
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Selected:
    """A collection that is going to be read, with what a plan knows of it better than the store does."""

    name: str
    metric: Metric | None = None
    rows: Any = None
    """How its rows are read, where the plan decides that; as ``Place.rows``."""


@dataclass(frozen=True)
class Hits:
    """Answers to one query, nearest first."""

    ids: list[str]
    distances: np.ndarray
    """float64[k]: cosine distance, Euclidean distance (not squared), or negative inner product."""


@dataclass(frozen=True)
class Built:
    """How an index was built; with the defaults where nothing was to be built."""

    memory: int = 0
    """Bytes that the build was allowed."""
    workers: int = 0
    """Beside the one that leads."""
    index_type: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What tells the metric of a collection."""

    shown: Metric | None
    """The only one that explains the distances that the store gives; None where none or several do."""
    distances: int = 0
    """How many those are."""
    says: dict[str, str] = field(default_factory=dict)
    """Where the store keeps a metric → which; the entries may contradict each other."""


@dataclass(frozen=True)
class Labelled:
    """Rows with a vector by what they show, such as an individual or a species; a sample of them by name."""

    name: str
    """What tells, such as a column."""
    of: dict[str, str]
    """Id → label of the rows that were drawn: of each label two at least."""
    labels: int
    """How many there are that two rows have at least."""
    alone: int
    """Labels of a single row, which no other row can be found by."""
    unlabelled: int
    """Rows whose label is null or empty."""


class Turn:
    """One piece of work in a store. This one is done at once, whoever else is there; a store that gives way to others has its
    own kind."""

    gives_way: ClassVar[bool] = False
    """Whether the piece should be cut into short ones, with rests between."""

    def cut(self, rows: int) -> Iterable[slice]:
        """So many rows in pieces, with a rest after each."""
        return [slice(0, rows)] * bool(rows)

    def rest(self) -> None:
        """Rests for what was worked since the last rest. Not to be called while a lock is held on what others use."""


AT_ONCE = Turn()


class Source(Protocol):
    """A store that records are read from."""

    @property
    def copied_bytes(self) -> int:
        """Of the private copy that is read in place of it; 0 where it is read itself."""
        ...

    def version(self) -> dict[str, str]:
        """The versions of what keeps the records, and of what reads them: product → version."""
        ...

    def names(self) -> list[str]:
        """Of its collections."""
        ...

    def records(self, name: str) -> "Records":
        """Opens a collection to be read. Raises UsageError when there is none; it is never created."""
        ...


class Records(Protocol):
    """The records of one collection, of one table and column, or of one named vector, open to be read. Each batch has the
    columns of ``records``; with ``content=False`` all but id and embedding may be null, which is faster."""

    @property
    def metric(self) -> Metric: ...

    @property
    def distance_tolerance(self) -> float:
        """How far the distances that ``search`` gives may lie from those of float32 vectors, relative to what is summed up."""
        ...

    def describe(self) -> Collection:
        """As they are now."""
        ...

    def evidence(self) -> Evidence:
        """What tells that the metric is the one that ``describe`` says."""
        ...

    def count(self) -> int: ...

    def size(self) -> int | None:
        """Bytes, with their indexes; None where the store does not tell."""
        ...

    def ids(self) -> pa.Array:
        """Every id, listed once: string[n]."""
        ...

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        """All of them, in any order."""
        ...

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> pa.RecordBatch:
        """Those of ``ids`` that exist, in any order, whatever the number of ids."""
        ...

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        """So many random ones that have a vector; ``settled``: of those that we wrote and nobody has changed since."""
        ...

    def labelled(self, rows: int, each: int) -> Labelled | None:
        """Random labels, always the same ones, of two rows or more that have a vector, with at most ``each`` of their rows, until
        there are ``rows``; None where nothing tells what a row shows."""
        ...

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        """The store's own approximate search: queries float32[n, d]. ``effort`` is how many candidates the index looks at
        (hnsw.ef_search of pgvector, hnsw_ef of Qdrant), and 0 none, so that every row is compared; a store that is not told so
        with a query, as Chroma, passes it over."""
        ...

    def turns(self) -> AbstractContextManager[Callable[[], AbstractContextManager[Turn]]]:
        """Yields what each piece of work of the body is to be done in, so that others who use the store come first."""
        ...


class Sink(Protocol):
    """A store that records are written to."""

    def create(self, collection: Collection) -> None: ...

    def write(self, name: str, records: pa.RecordBatch) -> None:
        """Inserts or replaces by id."""
        ...

    def delete(self, name: str, ids: Sequence[str]) -> None: ...


def records(dimensions: int | None, others: bool = False) -> pa.Schema:
    """The schema that records travel in; ``others``: with the column of a record's other vectors."""
    vector = pa.list_(pa.float32(), dimensions) if dimensions else pa.list_(pa.float32())
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("document", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("embedding", vector),
    ]
    return pa.schema([*fields, pa.field("others", pa.binary())] if others else fields)


def vectors(batch: pa.RecordBatch | pa.Table) -> np.ndarray:
    """The embeddings of a batch as float32[rows, d]; rows without one are zero, see the column's null mask."""
    column = batch.column("embedding")
    if isinstance(column, pa.ChunkedArray):  # combining copies, one chunk too
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not pa.types.is_fixed_size_list(column.type):
        return np.zeros((len(column), 0), np.float32)
    width = column.type.list_size
    # .values skips neither offsets nor nulls, so slice by hand; null slots hold arbitrary values.
    flat = column.values.slice(column.offset * width, len(column) * width)
    matrix = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(len(column), width)
    if column.null_count:
        matrix = np.where(np.asarray(column.is_valid())[:, None], matrix, np.float32(0))
    return matrix


def vector_column(matrix: np.ndarray, present: np.ndarray | None = None) -> pa.FixedSizeListArray:
    """An embedding column from float32[rows, d]; ``present`` bool[rows] marks the rows that have a vector."""
    flat = pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1))
    mask = None if present is None or present.all() else pa.array(~present)
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1], mask=mask)
