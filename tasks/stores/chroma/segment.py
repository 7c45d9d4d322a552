"""Whether the vector segments of a Chroma directory are whole.

Chroma leaves out what it cannot find, and the C++ of its index trusts the bytes it loads: a neighbour outside the graph
ends the process. So each segment is looked through before it is opened: the graph (hnswlib's layout, as Chroma persists
it), and whether the index and the records name the same ids, once what still waits in the queue is added.
"""

import pickle
import sqlite3
import struct
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base.words import agreeing, counted

DATABASE = "chroma.sqlite3"
"""The file of a Chroma directory that has everything but the vector segments."""
HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
"""Version, offset of the links, capacity, elements, bytes an element, offset of the label, offset of the vector, top
level, entry point, links a level, links of level 0, M, level factor, ef_construction."""
AT_ONCE = 16 << 20
"""Bytes of vectors in memory."""
UPDATE, DELETE = 1, 3
"""Operations of the queue; the others, add and upsert, make an id."""


@dataclass(frozen=True)
class Segment:
    """One collection's vectors, and where its records are."""

    name: str
    collection: str
    dimensions: int | None
    vectors: str
    records: str


@dataclass(frozen=True)
class Graph:
    """Of the header, what the other files must agree with."""

    elements: int
    element_bytes: int
    label_at: int
    top: int
    entry: int
    links: int
    links_0: int


class Damaged(Exception):
    """A file is not what Chroma wrote; the message says which, and why."""


def problems(folder: Path, chosen: frozenset[str]) -> list[str]:
    """What is wrong with the segments in those folders, a line a collection."""
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        return [
            f"{segment.name}: {problem}"
            for segment in _segments(database)
            if segment.vectors in chosen and (problem := _problem(folder, database, segment))
        ]


def _segments(database: sqlite3.Connection) -> list[Segment]:
    rows = database.execute(
        "SELECT c.name, c.id, c.dimension, v.id, m.id FROM collections c "
        "JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR' "
        "JOIN segments m ON m.collection = c.id AND m.scope = 'METADATA' ORDER BY c.name"
    )
    return [Segment(*row) for row in rows]


def _problem(folder: Path, database: sqlite3.Connection, segment: Segment) -> str | None:
    files = folder / segment.vectors
    try:
        ids = _index_ids(files / "index_metadata.pickle")
        if ids["id_to_label"]:
            _check_graph(files, segment.dimensions, np.fromiter(ids["label_to_id"], np.uint64, len(ids["label_to_id"])))
    except Damaged as damage:
        return str(damage)
    index: dict[str, Any] = ids.pop("id_to_label")
    for name, there in _waiting(database, segment, _reached(database, segment.vectors) or int(ids["max_seq_id"] or 0)):
        if there:
            index.setdefault(name)
        else:
            index.pop(name, None)
    return _disagreement(database, segment, index)


def _disagreement(database: sqlite3.Connection, segment: Segment, index: dict[str, Any]) -> str | None:
    records, lost = 0, list[str]()
    for name in _records(database, segment):
        records += 1
        if name not in index:
            lost.append(name)
    if lost:
        return (
            f"{_some(lost)} of {counted(records, 'record')} {agreeing(len(lost), 'are')} no longer in the "
            f"index and {agreeing(len(lost), 'have')} no vector"
        )
    if len(index) > records:
        left = set(index).difference(_records(database, segment))
        return (
            f"{_some(left)} of {counted(len(index), 'vector')} in the index {agreeing(len(left), 'belong')} "
            "to no record"
        )
    return None


def _records(database: sqlite3.Connection, segment: Segment) -> Iterator[str]:
    waiting = dict(_waiting(database, segment, _reached(database, segment.records)))
    query = "SELECT embedding_id FROM embeddings WHERE segment_id = ?"
    for (name,) in database.execute(query, (segment.records,)):
        if waiting.pop(name, True):
            yield name
    yield from (name for name, there in waiting.items() if there)


def _waiting(database: sqlite3.Connection, segment: Segment, reached: int) -> Iterator[tuple[str, bool]]:
    """What the queue holds for the collection since the sequence number ``reached``: ids, and whether they are there."""
    rows = database.execute(
        "SELECT operation, id FROM embeddings_queue WHERE seq_id > ? AND topic LIKE '%/' || ? ORDER BY seq_id",
        (reached, segment.collection),
    )
    return ((name, operation != DELETE) for operation, name in rows if operation != UPDATE)


def _reached(database: sqlite3.Connection, segment: str) -> int:
    row = database.execute("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (segment,)).fetchone()
    number = row[0] if row else 0
    return int.from_bytes(number, "big") if isinstance(number, bytes) else int(number)  # bytes until 0.5


class _Data:
    """Stands for the class whose instance Chroma pickled until 0.6."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("chromadb.segment.impl.vector.local_persistent_hnsw", "PersistentData"):
            return _Data
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _index_ids(path: Path) -> dict[str, Any]:
    """The ids of the index and their labels; none where it was never written."""
    empty: dict[str, Any] = {"id_to_label": {}, "label_to_id": {}, "max_seq_id": None}
    if not path.exists():
        return empty
    try:
        with path.open("rb") as handle:
            loaded = _Unpickler(handle).load()
        values = vars(loaded) if isinstance(loaded, _Data) else dict(loaded)
        return (
            empty
            | {key: values[key] for key in ("id_to_label", "label_to_id")}
            | {"max_seq_id": values.get("max_seq_id")}
        )
    except Exception as error:  # what is no pickle of ours can fail in any way
        raise Damaged(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error


def _check_graph(files: Path, dimensions: int | None, labels: np.ndarray) -> None:
    for name in ("header.bin", "data_level0.bin", "link_lists.bin", "length.bin"):
        if not (files / name).exists():
            raise Damaged(f"{name} is missing from the vector segment {files.name}")
    graph = _header((files / "header.bin").read_bytes(), dimensions)
    if (files / "length.bin").stat().st_size < 4 * graph.elements:
        raise Damaged(f"length.bin is cut off: it should hold {counted(graph.elements, 'length')}")
    _check_elements(files / "data_level0.bin", graph, labels)
    _check_upper(files / "link_lists.bin", graph)


def _header(data: bytes, dimensions: int | None) -> Graph:
    if len(data) < HEADER.size:
        raise Damaged("header.bin is cut off")
    _, _, capacity, elements, size, label_at, vector_at, top, entry, links, links_0, _, _, _ = HEADER.unpack_from(data)
    graph = Graph(elements, size, label_at, top, entry, links, links_0)
    sound = (
        elements <= capacity
        and entry < max(elements, 1)
        and 0 < links <= links_0 < 1 << 16
        and vector_at == 4 + 4 * links_0
        and label_at + 8 == size
        and (dimensions is None or label_at - vector_at == 4 * dimensions)
    )
    if not sound:
        raise Damaged("header.bin does not describe a vector index of this collection")
    return graph


def _check_elements(path: Path, graph: Graph, labels: np.ndarray) -> None:
    if path.stat().st_size < graph.elements * graph.element_bytes:
        raise Damaged(f"{path.name} is cut off: it should hold {counted(graph.elements, 'vector')}")
    there, rows = np.empty(graph.elements, np.uint64), max(1, AT_ONCE // graph.element_bytes)
    with path.open("rb") as handle:
        for start in range(0, graph.elements, rows):
            count = min(rows, graph.elements - start)
            read = np.frombuffer(handle.read(count * graph.element_bytes), np.uint8).reshape(count, -1)
            _check_links(read[:, : 4 + 4 * graph.links_0], graph.links_0, graph.elements, path.name)
            there[start : start + count] = _numbers(read[:, graph.label_at : graph.label_at + 8], "<u8")
    if lost := int(np.isin(labels, there, invert=True).sum()):
        raise Damaged(f"{path.name} lacks {lost:,} of {counted(len(labels), 'vector')}")


def _check_links(lists: np.ndarray, most: int, elements: int, name: str) -> None:
    """Link lists, uint8[n, 4 + 4·most]: how many there are in two bytes, two of flags, then the neighbours."""
    counts = _numbers(lists[:, :2], "<u2")
    neighbours = np.ascontiguousarray(lists[:, 4:]).view("<u4")
    used = np.arange(most) < counts[:, None]
    if (counts > most).any() or (neighbours[used] >= elements).any():
        raise Damaged(f"{name} names neighbours that do not exist")


def _check_upper(path: Path, graph: Graph) -> None:
    """Links above level 0: of each element the bytes they take, and the lists of its levels."""
    data, at, size = path.read_bytes(), 0, 4 + 4 * graph.links
    lists = bytearray()
    for element in range(graph.elements):
        if at + 4 > len(data):
            raise Damaged(f"{path.name} is cut off")
        (taken,) = struct.unpack_from("<I", data, at)
        at += 4 + taken
        if taken % size or at > len(data):
            raise Damaged(f"{path.name} is cut off")
        lists += data[at - taken : at]
        if element == graph.entry and taken < graph.top * size:
            raise Damaged(f"{path.name} lacks the levels of the entry point")
    _check_links(np.frombuffer(lists, np.uint8).reshape(-1, size), graph.links, graph.elements, path.name)


def _numbers(columns: np.ndarray, kind: str) -> np.ndarray:
    return np.ascontiguousarray(columns).view(kind)[:, 0]


def _some(names: Collection[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in sorted(names)[:3])
    return f"{len(names):,} ({shown}{', …' if len(names) > 3 else ''})"
