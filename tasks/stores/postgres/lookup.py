"""What a record elsewhere does not say itself, but the row of a table does that it names: the reference of its image, or its text."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import errors, sql

from tasks.base.errors import UsageError
from tasks.stores.postgres.connection import Connection, connect, refusable
from tasks.stores.postgres.live_table import columns_of, place
from tasks.stores.postgres.named import database_url

_READ_ONLY = "SET default_transaction_read_only = on; SET statement_timeout = '2min'"
_ROWS = "SELECT {match}::text, min({column}::text) FROM {table} WHERE {where} AND {column} IS NOT NULL GROUP BY 1"
_TWICE = (
    "SELECT {match}::text FROM {table} WHERE {match} IS NOT NULL AND {column} IS NOT NULL GROUP BY 1 "
    "HAVING count(DISTINCT {column}::text) > 1 ORDER BY 1 LIMIT 1"
)
_ALL = "SELECT {match}::text FROM {table} WHERE {column} IS NOT NULL"
SHOWN = 3
"""Rows that no record names, by name."""


@dataclass(frozen=True)
class Lookup:
    """The row whose column ``match`` is what the record has under ``key``, and its ``column``. Where several rows match, the
    least value of theirs counts, so that it is always the same one."""

    key: str
    table: str
    """As SQL names it."""
    match: str
    column: str
    database: str
    """How its URL is called."""

    def documents(self, values: Sequence[Any]) -> list[str | None]:
        """What the rows say that ``values`` name, in their order; None where a value names none, or there is no such row.
        Raises UsageError where the table or a column is not there, TransientError and FatalError."""
        keys = [_key(value) for value in values]
        wanted = sorted({key for key in keys if key is not None})
        if not wanted:
            return [None] * len(keys)
        with self._connected() as (connection, names, kind):
            documents = _rows(connection, names, kind, wanted)
        return [None if key is None else documents.get(key) for key in keys]

    def warnings(self) -> list[str]:
        """What there is to be said of the table before it is read. Raises as ``documents``."""
        with self._connected() as (connection, names, _):
            row = connection.execute(sql.SQL(_TWICE).format(**names)).fetchone()
        if row is None:
            return []
        return [f"{self.table} has several rows whose {self.match} is {row[0][:40]!r}: the least {self.column} counts"]

    def unnamed(self, pages: Iterable[Sequence[Any]]) -> tuple[int, list[str]]:
        """Rows whose ``column`` says something and that no record names, given what the records have under ``key``: how many, and
        the first of them. Memory: 8 bytes a record."""
        named = np.unique(np.array([_hash(key) for page in pages for key in map(_key, page) if key], np.uint64))
        count, first = 0, list[str]()
        with self._connected() as (connection, names, _), connection.transaction(), connection.cursor("rows") as rows:
            rows.execute(sql.SQL(_ALL).format(**names))
            while part := [key for (key,) in rows.fetchmany(10_000) if key is not None]:
                alone = ~np.isin(np.array(list(map(_hash, part)), np.uint64), named)
                count += int(alone.sum())
                first += [part[at] for at in np.flatnonzero(alone)[: SHOWN - len(first)]]
        return count, first

    @contextmanager
    def _connected(self) -> Iterator[tuple[Connection, Mapping[str, sql.Composable], str]]:
        """A connection that only reads, the names of table and columns, and the type of ``match``."""
        with (
            refusable(f"lookup in {self.table}"),
            connect(database_url(self.database), "vecferry lookup") as connection,
        ):
            connection.execute(_READ_ONLY)
            schema, table = place(connection, self.table)
            columns = columns_of(connection, schema, table)
            for name in (self.match, self.column):
                if name not in columns:
                    raise UsageError(f"{schema}.{table} has no column {name!r}; its columns: {', '.join(columns)}")
            names = {name: sql.Identifier(value) for name, value in (("match", self.match), ("column", self.column))}
            yield connection, {"table": sql.Identifier(schema, table), **names}, columns[self.match]


def _rows(connection: Connection, names: Mapping[str, sql.Composable], kind: str, wanted: list[str]) -> dict[str, str]:
    """What the rows say that are named, by their keys."""
    typed = sql.SQL("{} = ANY(%s::text[]::{}[])").format(names["match"], sql.SQL(kind))
    as_text = sql.SQL("{}::text = ANY(%s)").format(names["match"])
    try:
        rows = connection.execute(sql.SQL(_ROWS).format(**names, where=typed), (wanted,)).fetchall()
    except errors.DataError:  # somebody names what is no value of that type
        rows = connection.execute(sql.SQL(_ROWS).format(**names, where=as_text), (wanted,)).fetchall()
    return dict(rows)


def _key(value: Any) -> str | None:
    """What a record names, as a row has it; a list, an object, a truth value or nothing names none."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
