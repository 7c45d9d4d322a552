"""Vectors by content: each is kept under its space and the hash of its text before it is loaded anywhere, so that no
retry, rerun or second run buys it again.

    VECFERRY_HOME/vectors/<space>/<segment>.arrow     content: binary[32], embedding: float32[d]

The segments are the store. vecferry.vector is only an index into them, and is rebuilt from them where it lacks one. They
are Arrow files, not Parquet: Parquet has levels to write and to read for every component of a list.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial

import numpy as np
import pyarrow as pa

from tasks.base import files
from tasks.embedders.interface import Embedder, RowError
from tasks.embedders.registry import open_embedder
from tasks.runs import claims, spending
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.stores.interface import vector_column, vectors
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection

Place = Callable[[Sequence[bytes], np.ndarray], None]
"""Takes keys and their vectors, float32[k, d]."""


def embedded(
    run: Run, target: Target, page: pa.Table, tally: bool = False, model: str | None = None
) -> tuple[pa.Table, Mapping[int, RowError]]:
    """The page with the vectors of the target's space: its own where they are carried, else those of its documents, for
    which it need not have a column.

    A record without a document gets no vector. The rows whose document the model refuses are told by their index.
    ``tally`` counts what need not be bought as saved. ``model`` stands in for the run's.
    """
    if target.carried and model is None:
        return page, {}
    embedder = spending.embedder_of(run, model)
    documents = page.column("document").to_pylist()
    said = [d for d in documents if d is not None]
    made = embedder.keys(said)
    texts, each = dict(zip(made, said, strict=True)), iter(made)
    keys = [None if d is None else next(each) for d in documents]
    rows: dict[bytes | None, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    matrix, present = np.zeros((len(keys), embedder.space.dimensions), np.float32), np.zeros(len(keys), bool)

    def place(names: Sequence[bytes], found: np.ndarray) -> None:
        at = [row for name in names for row in rows[name]]
        matrix[at] = found if len(at) == len(names) else np.repeat(found, [len(rows[name]) for name in names], axis=0)
        present[at] = True

    refused: dict[bytes | None, RowError] = {}
    turns = claims.in_turn(embedder.space.fingerprint, list(texts))
    with run.connection() as connection, closing(turns):
        for mine in turns:
            missing = _missing(run, connection, embedder, mine, place)
            if tally:
                spending.note(run, connection, reused=len(mine) - len(missing))
            if missing:
                bought = partial(_bought, run, connection, embedder, missing, place)
                answer = embedder.embed([texts[key] for key in missing], bought)
                refused |= {missing[at]: error for at, error in answer.rejected.items()}
    column, at = vector_column(matrix, present), page.schema.get_field_index("embedding")
    page = page.append_column("embedding", column) if at < 0 else page.set_column(at, "embedding", column)
    return page, {row: refused[key] for row, key in enumerate(keys) if key in refused}


def _bought(
    run: Run,
    connection: Connection,
    embedder: Embedder,
    missing: list[bytes],
    place: Place,
    positions: Sequence[int],
    bought: np.ndarray,
) -> None:
    names = [missing[at] for at in positions]
    _keep(run, connection, embedder, names, bought)
    spending.note(run, connection, bought=len(names))
    place(names, bought)


def recover(run: Run) -> int:
    """Indexes the segments that a killed run wrote but did not index; returns how many."""
    if run.plan.request.embedder is None:
        return 0
    embedder = open_embedder(run.plan.request.embedder)
    with run.connection() as connection:
        rows = connection.execute(
            "SELECT DISTINCT segment FROM vecferry.vector WHERE space = %s", (embedder.space.fingerprint,)
        ).fetchall()
        lost = sorted(set(files.names(_folder(run, embedder))) - {segment for (segment,) in rows})
        for segment in lost:
            table = _read(run, embedder, segment)
            _index(connection, embedder, segment, table.column("content").to_pylist())
    return len(lost)


def _missing(run: Run, connection: Connection, embedder: Embedder, keys: list[bytes], place: Place) -> list[bytes]:
    """Hands what is kept to ``place``, a segment at a time, and returns the keys that are not."""
    kept: dict[str, tuple[list[bytes], list[int]]] = defaultdict(lambda: ([], []))
    with pace.turn(connection) as turn:
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
    found: set[bytes] = set()
    for segment, (names, positions) in kept.items():
        try:
            matrix = vectors(_read(run, embedder, segment))
        except FileNotFoundError:  # somebody cleared the folder: these are bought again
            connection.execute("DELETE FROM vecferry.vector WHERE segment = %s", (segment,))
            continue
        place(names, matrix[positions])
        found.update(names)
    return [key for key in keys if key not in found]


def _keep(run: Run, connection: Connection, embedder: Embedder, keys: list[bytes], bought: np.ndarray) -> None:
    table = pa.table({"content": pa.array(keys, pa.binary()), "embedding": vector_column(bought)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    segment = f"{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.arrow"
    files.write(files.join(_folder(run, embedder), segment), memoryview(sink.getvalue()))
    _index(connection, embedder, segment, keys)


def _index(connection: Connection, embedder: Embedder, segment: str, keys: list[bytes]) -> None:
    with pace.turn(connection) as turn:
        for rows in turn.cut(len(keys)):
            connection.execute(
                "INSERT INTO vecferry.vector (space, content, segment, position) SELECT %s, content, %s, %s + place - 1 "
                "FROM unnest(%b::bytea[]) WITH ORDINALITY AS t (content, place) ON CONFLICT DO NOTHING",
                (embedder.space.fingerprint, segment, rows.start, keys[rows]),
            )


def _read(run: Run, embedder: Embedder, segment: str) -> pa.Table:
    return pa.ipc.open_file(pa.py_buffer(files.read(files.join(_folder(run, embedder), segment)))).read_all()


def _folder(run: Run, embedder: Embedder) -> str:
    return files.join(run.home, "vectors", *embedder.space.fingerprint.split("/"))
