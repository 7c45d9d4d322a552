"""The tables of one PostgreSQL schema, as a store to read from and write to: how tests look at what a run left."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.base.errors import UsageError
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection, server_version
from tasks.stores.postgres.pages import merge_staged, stage_page
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.records import TableRecords
from tasks.stores.postgres.table import Table, create_index, create_table, describe, key_statement, remove
from tasks.stores.records import with_hash


@dataclass(frozen=True)
class PostgresStore:
    """The tables of one schema that have our shape. Satisfies Source and Sink."""

    connection: Connection
    schema: str = "public"

    copied_bytes = 0

    def version(self) -> dict[str, str]:
        return server_version(self.connection)

    def names(self) -> list[str]:
        rows = self.connection.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'content_hash' "
            "WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind = 'r' ORDER BY 1",
            (self.schema,),
        ).fetchall()
        return [name for (name,) in rows]

    def records(self, name: str) -> TableRecords:
        return TableRecords(self.connection, self._table(name))

    def create(self, collection: Collection) -> None:
        table = Table(self.schema, collection.name, Layout("vector", collection.dimensions, collection.metric))
        with self.connection.transaction():
            create_table(self.connection, table)
            self.connection.execute(key_statement(table, f"{table.name[:50]}_pkey"))
            create_index(self.connection, table, f"{table.name[:50]}_hnsw", (collection.m, collection.ef_construction))

    def write(self, name: str, records: pa.RecordBatch) -> None:
        table = self._table(name)
        with self.connection.transaction():
            stage_page(self.connection, table, with_hash(pa.Table.from_batches([records])))
            merge_staged(self.connection, table)

    def delete(self, name: str, ids: Sequence[str]) -> None:
        remove(self.connection, self._table(name), _storable(ids))

    def _table(self, name: str) -> Table:
        table = describe(self.connection, self.schema, name)
        if table is None:
            raise UsageError(f"there is no table {self.schema}.{name}; available: {', '.join(self.names()) or 'none'}")
        return table


def _storable(ids: Sequence[str]) -> list[str]:
    """Those that a text column can hold: no row has an id with a NUL, and none may be asked for."""
    return [i for i in ids if "\0" not in i]
