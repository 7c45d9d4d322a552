"""The tables of one PostgreSQL schema, as a store to read from and write to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from psycopg import sql

from sql import statement
from tasks.base.errors import UsageError
from tasks.stores.interface import Collection, Evidence, Hits, records
from tasks.stores.postgres.connection import Connection, server_version
from tasks.stores.postgres.pages import stage_page
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.table import Table, create_index, create_table, describe, key_statement, read, remove, search
from tasks.stores.records import with_hash


@dataclass(frozen=True)
class PostgresStore:
    """The tables of one schema that have our shape. Satisfies Source and Sink."""

    connection: Connection
    schema: str = "public"

    consistent_snapshot = False
    copied_bytes = 0

    def version(self) -> dict[str, str]:
        return server_version(self.connection)

    def collections(self) -> list[Collection]:
        return [self.collection(name) for name in self._names()]

    def collection(self, name: str) -> Collection:
        table = self._table(name)
        count = self.connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
        oid = self.connection.execute("SELECT %s::regclass::oid", (table.identifier.as_string(),)).fetchone()
        assert count
        assert oid
        return Collection(name, str(oid[0]), count[0], table.layout.dimensions, table.layout.metric)

    def evidence(self, name: str) -> Evidence:
        return Evidence(self._table(name).layout.metric)

    def ids(self, name: str) -> pa.Array:
        command = sql.SQL("COPY (SELECT id FROM {}) TO STDOUT (FORMAT BINARY)").format(self._table(name).identifier)
        with self.connection.cursor() as cursor, cursor.copy(command) as copy:
            copy.set_types(["text"])
            return pa.array((row[0] for row in copy.rows()), pa.string())

    def fetch(self, name: str, ids: Sequence[str]) -> pa.RecordBatch:
        table = self._table(name)
        where = sql.SQL("WHERE id = ANY({})").format(sql.Literal(_storable(ids)))
        batches = list(read(self.connection, table, where))
        merged = pa.Table.from_batches(batches, records(table.layout.dimensions)).combine_chunks()
        return merged.to_batches()[0] if merged.num_rows else pa.RecordBatch.from_pylist([], merged.schema)

    def search(self, name: str, queries: np.ndarray, k: int) -> list[Hits]:
        return search(self.connection, self._table(name), queries, k)

    def create(self, collection: Collection) -> None:
        table = Table(self.schema, collection.name, Layout("vector", collection.dimensions, collection.metric))
        with self.connection.transaction():
            create_table(self.connection, table)
            self.connection.execute(key_statement(table, f"{table.name[:50]}_pkey"))
            create_index(self.connection, table, f"{table.name[:50]}_hnsw", collection.m, collection.ef_construction)

    def write(self, name: str, records: pa.RecordBatch) -> None:
        table = self._table(name)
        with self.connection.transaction():
            stage_page(self.connection, table, with_hash(pa.Table.from_batches([records])))
            self.connection.execute(statement("sync_upsert", schema=table.schema, table=table.name))

    def delete(self, name: str, ids: Sequence[str]) -> None:
        remove(self.connection, self._table(name), _storable(ids))

    def _table(self, name: str) -> Table:
        table = describe(self.connection, self.schema, name)
        if table is None:
            raise UsageError(f"there is no table {self.schema}.{name}; available: {', '.join(self._names()) or 'none'}")
        return table

    def _names(self) -> list[str]:
        rows = self.connection.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'content_hash' "
            "WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind = 'r' ORDER BY 1",
            (self.schema,),
        ).fetchall()
        return [name for (name,) in rows]


def _storable(ids: Sequence[str]) -> list[str]:
    """Those that a text column can hold: no row has an id with a NUL, and none may be asked for."""
    return [i for i in ids if "\0" not in i]
