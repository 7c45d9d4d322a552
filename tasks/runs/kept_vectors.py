"""The segments that kept vectors lie in, and their index vecferry.vector: read and written for a run, or for no run at all.

    VECFERRY_HOME/vectors/<space>/<segment>.arrow     content: binary[32], embedding: float32[d]

The segments are the store. vecferry.vector is only an index into them, and is rebuilt from them where it lacks one. They
are Arrow files, not Parquet: Parquet has levels to write and to read for every component of a list.
"""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Protocol

import numpy as np
import pyarrow as pa

from tasks.base import files
from tasks.embedders.interface import Embedder
from tasks.stores.interface import Turn, vector_column
from tasks.stores.postgres.connection import Connection


class Keeper(Protocol):
    """Whoever keeps vectors: a run, or a client that has none."""

    @property
    def home(self) -> str:
        """The VECFERRY_HOME that the segments lie in."""
        ...

    def turn(self, connection: Connection) -> AbstractContextManager[Turn]:
        """One piece of work in the database of the index."""
        ...


def segments(
    keeper: Keeper, connection: Connection, embedder: Embedder, keys: list[bytes]
) -> Mapping[str, tuple[list[bytes], list[int]]]:
    """Where those of the keys lie that are kept: segment → keys and their positions in it."""
    kept: dict[str, tuple[list[bytes], list[int]]] = defaultdict(lambda: ([], []))
    with keeper.turn(connection) as turn:
        for part in turn.cut(len(keys)):
            rows = connection.execute(
                "SELECT segment, array_agg(content), array_agg(position) FROM vecferry.vector "
                "WHERE space = %s AND content = ANY(%b::bytea[]) GROUP BY segment",
                (embedder.space.fingerprint, keys[part]),
                binary=True,
            )
            for segment, names, positions in rows:
                kept[segment][0].extend(names)
                kept[segment][1].extend(positions)
    return kept


def keep(keeper: Keeper, connection: Connection, embedder: Embedder, keys: list[bytes], made: np.ndarray) -> None:
    """Writes vectors, float32[n, d], as a segment, then into the index."""
    table = pa.table({"content": pa.array(keys, pa.binary()), "embedding": vector_column(made)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    segment = f"{sha256(b''.join(keys)).hexdigest()[:32]}.arrow"
    files.write(_path(keeper, embedder, segment), memoryview(sink.getvalue()))
    _index(keeper, connection, embedder, segment, keys)


def read(keeper: Keeper, embedder: Embedder, segment: str) -> pa.Table:
    """Raises FileNotFoundError where somebody has cleared the folder."""
    return pa.ipc.open_file(pa.py_buffer(files.read(_path(keeper, embedder, segment)))).read_all()


def forget(connection: Connection, segment: str) -> None:
    """Takes a segment that is there no more out of the index."""
    connection.execute("DELETE FROM vecferry.vector WHERE segment = %s", (segment,))


def index_lost(keeper: Keeper, connection: Connection, embedder: Embedder) -> int:
    """Indexes the segments of the embedder's space that a killed process wrote but did not index; returns how many."""
    rows = connection.execute(
        "SELECT DISTINCT segment FROM vecferry.vector WHERE space = %s", (embedder.space.fingerprint,)
    ).fetchall()
    lost = sorted(set(files.names(_path(keeper, embedder))) - {segment for (segment,) in rows})
    for segment in lost:
        table = read(keeper, embedder, segment)
        _index(keeper, connection, embedder, segment, table.column("content").to_pylist())
    return len(lost)


def _index(keeper: Keeper, connection: Connection, embedder: Embedder, segment: str, keys: list[bytes]) -> None:
    with keeper.turn(connection) as turn:
        for rows in turn.cut(len(keys)):
            connection.execute(
                "INSERT INTO vecferry.vector (space, content, segment, position) SELECT %s, content, %s, %s + place - 1 "
                "FROM unnest(%b::bytea[]) WITH ORDINALITY AS t (content, place) ON CONFLICT DO NOTHING",
                (embedder.space.fingerprint, segment, rows.start, keys[rows]),
            )


def _path(keeper: Keeper, embedder: Embedder, *segment: str) -> str:
    return files.join(keeper.home, "vectors", *embedder.space.fingerprint.split("/"), *segment)
