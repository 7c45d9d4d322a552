"""The rows of live tables as records: their texts with their old vectors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import sql

from tasks.base.errors import UsageError
from tasks.stores.interface import Collection, Connect, Evidence, Hits, Labelled, Metric, Selected, records
from tasks.stores.postgres import pace, relations
from tasks.stores.postgres.connection import server_version
from tasks.stores.postgres.labels import labelled
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.records import described
from tasks.stores.postgres.table import Table, page, search
from tasks.stores.records import sampled, streamed


@dataclass(frozen=True)
class LiveTables:
    """Live tables of one database by name. Satisfies Source."""

    connect: Connect
    tables: Mapping[str, LiveTable]

    copied_bytes = 0

    def version(self) -> dict[str, str]:
        with self.connect() as connection:
            return server_version(connection)

    def names(self) -> list[str]:
        return list(self.tables)

    def records(self, name: str) -> "LiveRecords":
        if name not in self.tables:
            raise UsageError(f"there is no table {name} in this plan; available: {', '.join(self.tables)}")
        return LiveRecords(self.connect, name, self.tables[name])


@dataclass(frozen=True)
class LiveRecords:
    """Satisfies Records. With a limit, its ids are the first so many."""

    connect: Connect
    name: str
    table: LiveTable

    @property
    def metric(self) -> Metric:
        return self.table.layout.metric

    @property
    def distance_tolerance(self) -> float:
        return self.table.layout.distance_tolerance

    @property
    def _meant(self) -> sql.Composable:
        return sql.SQL("{} AS meant").format(self.table.relation)

    def describe(self) -> Collection:
        with self.connect() as connection:
            table = self.table
            return described(connection, self.name, table.identifier, self._meant, table.layout)

    def evidence(self) -> Evidence:
        return Evidence(self.metric)

    def count(self) -> int:
        with self.connect() as connection:
            return relations.count(connection, self._meant)

    def size(self) -> int:
        with self.connect() as connection:
            return relations.size(connection, self.table.identifier)

    def ids(self) -> pa.Array:
        table = self.table
        # Qualified: a bare name would be the text that is selected, and sort by it.
        order = sql.SQL(", ").join(sql.Identifier("t", column.name) for column in table.key)
        limit = sql.SQL("LIMIT {}").format(sql.Literal(table.limit)) if table.limit else sql.SQL("")
        command = sql.SQL("COPY (SELECT {} FROM {} AS t ORDER BY {} {}) TO STDOUT (FORMAT BINARY)").format(
            sql.SQL(table.id()), table.relation, order, limit
        )
        with self.connect() as connection, connection.cursor() as cursor, cursor.copy(command) as copy:
            copy.set_types(["text"])
            return pa.array((row[0] for row in copy.rows()), pa.string())

    def stream(self, *, content: bool = True) -> Iterator[pa.RecordBatch]:
        return streamed(self, content)

    def fetch(self, ids: Sequence[str], *, content: bool = True) -> pa.RecordBatch:
        return self._fetch(self.table.rows(self.table.old_vector()), ids)

    def texts(self, ids: Sequence[str]) -> pa.RecordBatch:
        """As ``fetch``, without their old vectors, whose column may be gone."""
        return self._fetch(self.table.rows(f"NULL::{self.table.layout.type}"), ids)

    def sample(self, rows: int, *, content: bool = True, settled: bool = False) -> Iterator[pa.RecordBatch]:
        return sampled(self, rows, content)

    def labelled(self, rows: int, each: int) -> Labelled | None:
        with self.connect() as connection:
            return labelled(connection, self.table.records, rows, each)

    def search(self, queries: np.ndarray, k: int, effort: int | None = None) -> list[Hits]:
        with self.connect() as connection:
            return search(connection, self.table.records, queries, k, effort)

    @contextmanager
    def turns(self) -> Iterator[Callable[[], AbstractContextManager[Any]]]:
        with self.connect() as connection, pace.turns(connection) as take:
            yield take

    def _fetch(self, selected: Table, ids: Sequence[str]) -> pa.RecordBatch:
        table = self.table
        # No row has an id with a NUL, and PostgreSQL cannot be asked for one.
        ids = [name for name in ids if "\0" not in name]
        if not ids:
            return pa.RecordBatch.from_pylist([], records(table.layout.dimensions))
        key = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.key)
        parts = sql.SQL(", ".join(table.parts("wanted.id")))
        where = sql.SQL("WHERE ({}) IN (SELECT {} FROM unnest($1::text[]) AS wanted (id))").format(key, parts)
        with self.connect() as connection, pace.turn(connection) as turn:
            pages = [page(connection, selected, where, [ids[rows]]) for rows in turn.cut(len(ids))]
        return pages[0] if len(pages) == 1 else pa.concat_batches(pages)


def source(
    options: dict[str, Any], selected: Sequence[Selected] | None, fresh: bool, connect: Connect | None
) -> LiveTables:
    """The tables of a plan, in its own database."""
    assert connect
    return LiveTables(connect, {w.name: w.rows for w in selected or ()})
