"""The rows of one table and column of vectors, open to be read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import sql

from tasks.stores.interface import Collection, Evidence, Hits, Labelled, Metric, records
from tasks.stores.postgres import pace, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.labels import labelled
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.table import Table, read, search


@dataclass(frozen=True)
class TableRecords:
    """Satisfies Records."""

    connection: Connection
    table: Table

    @property
    def metric(self) -> Metric:
        return self.table.layout.metric

    @property
    def distance_tolerance(self) -> float:
        return self.table.layout.distance_tolerance

    def describe(self) -> Collection:
        table = self.table
        return described(self.connection, table.name, table.identifier, table.relation, table.layout)

    def evidence(self) -> Evidence:
        return Evidence(self.metric)

    def count(self) -> int:
        return relations.count(self.connection, self.table.relation)

    def size(self) -> int:
        return relations.size(self.connection, self.table.identifier)

    def ids(self) -> pa.Array:
        command = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)").format(
            sql.SQL(self.table.key), self.table.relation
        )
        with self.connection.cursor() as cursor, cursor.copy(command) as copy:
            copy.set_types(["text"])
            return pa.array((row[0] for row in copy.rows()), pa.string())

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        return read(self.connection, self.table, content=content)

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> pa.RecordBatch:
        # No row has an id with a NUL, and PostgreSQL cannot be asked for one.
        named = sql.Literal([name for name in ids if "\0" not in name])
        where = sql.SQL("WHERE {} = ANY({})").format(sql.SQL(self.table.key), named)
        batches = list(read(self.connection, self.table, where, content=content))
        merged = pa.Table.from_batches(batches, records(self.table.layout.dimensions)).combine_chunks()
        return merged.to_batches()[0] if merged.num_rows else pa.RecordBatch.from_pylist([], merged.schema)

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        where = sql.SQL("WHERE {} IS NOT NULL AND {} ORDER BY random() LIMIT {}").format(
            sql.SQL(self.table.column), sql.SQL(self.table.settled if settled else "true"), sql.Literal(rows)
        )
        return read(self.connection, self.table, where, content=content)

    def labelled(self, rows: int, each: int) -> Labelled | None:
        return labelled(self.connection, self.table, rows, each)

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        return search(self.connection, self.table, queries, k, effort)

    def turns(self) -> AbstractContextManager[Callable[[], AbstractContextManager[Any]]]:
        return pace.turns(self.connection)


def described(
    connection: Connection, name: str, table: sql.Identifier, relation: sql.Composable, layout: Layout
) -> Collection:
    """The records of a table, those that ``relation`` has of it, as they are now."""
    identity, rows = relations.identity(connection, table), relations.count(connection, relation)
    return Collection(name, identity, rows, layout.dimensions, layout.metric)
