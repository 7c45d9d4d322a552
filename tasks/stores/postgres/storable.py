"""What of a page PostgreSQL can store, and what it cannot, each row with its class and message."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import errors

from tasks.base.words import plural
from tasks.embedders.interface import RowError
from tasks.stores import canonical
from tasks.stores.interface import vectors
from tasks.stores.postgres import pgvector
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.records import with_hash

Nul = Literal["quarantine", "escape"]
Connect = Callable[[], AbstractContextManager[Connection]]

LONG_ID = 2600
"""Bytes from which a key may be too long for a B-tree page (2704 after compression); PostgreSQL decides each."""
SYMBOL_FOR_NUL = "\u2400"


@dataclass(frozen=True)
class Rejected:
    """One row that cannot be stored."""

    row: int
    """Index in its page."""
    kind: str
    message: str


def sift(
    connect: Connect, page: pa.Table, layout: Layout, nul: Nul, refused: Mapping[int, RowError] | None = None
) -> tuple[pa.Table, pa.Table | None]:
    """Splits a page of records with hashes into what can be stored and what cannot; None when all can.

    ``refused`` are rows that the model has no vector for, by their index. A connection is made only to try a long key.

    With ``nul="escape"`` a NUL in a document, in metadata or in a uri becomes U+2400; in an id it never does, because
    two ids could become one. The rejected rows are as they came, with two columns more, ``class`` and ``message``.
    """
    rejected = [Rejected(row, error.kind, error.message) for row, error in (refused or {}).items()]
    rejected += [*_nul_ids(page), *_unindexable(connect, page), *_vectors(page, layout), *_json(page)]
    if nul == "escape":
        rejected += _clashing_keys(page)
        kept = _escape(page)
    else:
        rejected += _nul_texts(page)
        kept = page
    if not rejected:
        return kept, None
    first = {r.row: r for r in reversed(rejected)}
    bad = pa.array(sorted(first))
    good = np.ones(page.num_rows, bool)
    good[bad.to_numpy()] = False
    out = page.take(bad)
    out = out.append_column("class", pa.array([first[i].kind for i in bad.to_pylist()], pa.string()))
    out = out.append_column("message", pa.array([first[i].message for i in bad.to_pylist()], pa.string()))
    return kept.filter(pa.array(good)), out


def _matching(column: pa.ChunkedArray, pattern: str) -> list[int]:
    rows: list[int] = np.flatnonzero(np.asarray(pc.fill_null(pc.match_substring(column, pattern), False))).tolist()
    return rows


def _nul_ids(page: pa.Table) -> list[Rejected]:
    message = "the id holds a NUL character, which PostgreSQL text cannot store"
    return [Rejected(i, "nul", message) for i in _matching(page.column("id"), "\0")]


def _nul_texts(page: pa.Table) -> list[Rejected]:
    message = "{} holds a NUL character, which PostgreSQL cannot store; nul=escape stores U+2400 instead"
    return [
        Rejected(i, "nul", message.format(name))
        for name in ("document", "uri", "metadata")
        for i in (_nul_metadata(page) if name == "metadata" else _matching(page.column(name), "\0"))
    ]


def _nul_metadata(page: pa.Table) -> list[int]:
    # JSON text writes a NUL as \\u0000, and only a parse tells that from an escaped backslash before u0000.
    column = page.column("metadata")
    return [i for i in _matching(column, "\\u0000") if _holds_nul(column[i].as_py())]


def _clashing_keys(page: pa.Table) -> list[Rejected]:
    message = "two keys of the metadata would become one, because they differ only in NUL and U+2400"
    texts = page.column("metadata")
    return [
        Rejected(i, "nul", message)
        for i in _nul_metadata(page)
        if len(keys := canonical.loads(texts[i].as_py()) or {}) > len({k.replace("\0", SYMBOL_FOR_NUL) for k in keys})
    ]


def _holds_nul(text: str) -> bool:
    def walk(value: object) -> bool:
        if isinstance(value, dict):
            return any(walk(k) or walk(v) for k, v in value.items())
        if isinstance(value, list):
            return any(map(walk, value))
        return isinstance(value, str) and "\0" in value

    return walk(canonical.loads(text))


def _escape(page: pa.Table) -> pa.Table:
    changed = False
    for name in ("document", "uri"):
        if _matching(page.column(name), "\0"):
            replaced = pc.replace_substring(page.column(name), "\0", SYMBOL_FOR_NUL)
            page = page.set_column(page.schema.get_field_index(name), name, replaced)
            changed = True
    if rows := set(_nul_metadata(page)):
        texts = page.column("metadata").to_pylist()
        texts = [_escape_json(t) if i in rows else t for i, t in enumerate(texts)]
        page = page.set_column(page.schema.get_field_index("metadata"), "metadata", pa.array(texts, pa.string()))
        changed = True
    return with_hash(page.drop_columns(["content_hash"])) if changed else page


def _escape_json(text: str) -> str:
    def walk(value: object) -> object:
        if isinstance(value, dict):
            return {str(walk(k)): walk(v) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(v) for v in value]
        return value.replace("\0", SYMBOL_FOR_NUL) if isinstance(value, str) else value

    return canonical.dumps(walk(canonical.loads(text))) or text  # type: ignore[arg-type]


def _json(page: pa.Table) -> list[Rejected]:
    hit = pc.fill_null(pc.match_substring_regex(page.column("metadata"), r"(NaN|Infinity)"), False)
    return [
        Rejected(i, "metadata", "metadata holds NaN or an infinity, which JSON cannot express")
        for i in np.flatnonzero(np.asarray(hit)).tolist()
        if not _is_json(page.column("metadata")[i].as_py())
    ]


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _vectors(page: pa.Table, layout: Layout) -> list[Rejected]:
    present = np.asarray(page.column("embedding").is_valid())
    if not present.any():
        return []
    matrix = vectors(page)
    if matrix.shape[1] != layout.dimensions:
        message = (
            f"the vector has {matrix.shape[1]} {plural(matrix.shape[1], 'dimension')}, the table {layout.dimensions}"
        )
        return [Rejected(i, "dimension", message) for i in np.flatnonzero(present).tolist()]
    bad = present & ~np.isfinite(matrix).all(axis=1)
    out = [Rejected(i, "not_finite", "the vector holds NaN or an infinity") for i in np.flatnonzero(bad).tolist()]
    if layout.type == "halfvec":
        big = present & ~bad & (np.abs(matrix) > pgvector.HALF_MAX).any(axis=1)
        message = f"a component is beyond ±{pgvector.HALF_MAX:.0f}, the range of halfvec; halfvec=false stores it"
        out += [Rejected(i, "halfvec_range", message) for i in np.flatnonzero(big).tolist()]
    return out


def _unindexable(connect: Connect, page: pa.Table) -> list[Rejected]:
    long = np.flatnonzero(np.asarray(pc.binary_length(page.column("id"))) > LONG_ID).tolist()
    return [
        Rejected(i, "id_too_long", "the id is too long for a PostgreSQL primary key (2704 bytes after compression)")
        for i in long
        if not _fits_a_key(connect, page.column("id")[i].as_py())
    ]


def _fits_a_key(connect: Connect, name: str) -> bool:
    if "\0" in name:
        return True  # rejected for that already
    try:
        with connect() as connection, connection.transaction(force_rollback=True):
            connection.execute("CREATE TEMPORARY TABLE key_probe (id text PRIMARY KEY) ON COMMIT DROP")
            connection.execute("INSERT INTO key_probe VALUES (%s)", (name,))
    except errors.ProgramLimitExceeded:
        return False
    return True
