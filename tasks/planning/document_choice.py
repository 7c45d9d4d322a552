"""Which chunks a run is about, by what it was told of their documents: as a condition over a chunk, which the plan freezes. Writes
nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from tasks.base.errors import UsageError
from tasks.base.words import counted, listed
from tasks.stores.postgres import row_expressions
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.expression import Expression
from tasks.stores.postgres.live_table import columns_of, literal, quoted
from tasks.stores.postgres.model_tables import ModelTables

USUAL = "created_at"
"""The column that the newest are told by, where no other is named."""


@dataclass(frozen=True)
class Choice:
    """Documents, as the user named them; all where nothing is named."""

    filter: str | None = None
    """SQL over a row of the documents."""
    ids: Sequence[str] | None = None
    first: int | None = None


def condition(connection: Connection, tables: ModelTables, choice: Choice, order_by: str | None) -> Expression | None:
    """Of the chunks that are meant; None for all. Raises UsageError for what the documents do not have."""
    documents = tables.documents
    columns = columns_of(connection, documents.schema, documents.table)
    conditions = [*_conditions(connection, tables, choice, columns)]
    if choice.first is not None:
        conditions += _before(
            connection, tables, conditions, _Order.of(order_by, str(documents), columns), choice.first
        )
    if not conditions:
        return None
    same = f"d.{quoted(documents.key)} = "
    return Expression.of(
        f"EXISTS (SELECT 1 FROM {documents.identifier.as_string()} AS d WHERE {same}",
        Expression(("", tables.chunks.document, "")),
        "".join(f" AND {one}" for one in conditions) + ")",
    )


def _conditions(
    connection: Connection, tables: ModelTables, choice: Choice, columns: Mapping[str, str]
) -> Iterator[str]:
    documents = tables.documents
    if choice.filter is not None:
        read = row_expressions.read(connection, choice.filter, str(documents), columns).sql("d")
        _tried(connection, tables, choice.filter, read)
        yield read
    if choice.ids is not None:
        yield from _among(connection, tables, choice.ids)


def _tried(connection: Connection, tables: ModelTables, given: str, condition: str) -> None:
    """Raises UsageError where PostgreSQL does not take it as a condition."""
    query = sql.SQL("SELECT 1 FROM {} AS d WHERE {} LIMIT 0").format(tables.documents.identifier, sql.SQL(condition))
    try:
        connection.execute(query)
    except psycopg.Error as error:
        raise UsageError(f"documents.filter {given!r}: {str(error).splitlines()[0]}") from error


def _among(connection: Connection, tables: ModelTables, keys: Sequence[str]) -> Iterator[str]:
    documents = tables.documents
    if not keys:
        raise UsageError("documents.ids is empty: name documents, or leave it out for all")
    key, kind = f"d.{quoted(documents.key)}", documents.key_type
    array = f"ARRAY[{', '.join(literal(str(one)) for one in keys)}]::text[]"
    missing = sql.SQL("SELECT k FROM unnest({}) AS k WHERE NOT EXISTS (SELECT 1 FROM {} AS d WHERE {} = k::{})").format(
        sql.SQL(array), documents.identifier, sql.SQL(key), sql.SQL(kind)
    )
    try:
        lacking = [name for (name,) in connection.execute(missing)]
    except psycopg.Error as error:
        raise UsageError(f"documents.ids: {str(error).splitlines()[0]}") from error
    if lacking:
        raise UsageError(
            f"documents.ids names {counted(len(lacking), 'document')} that {documents} does not have: {listed(lacking[:5])}"
        )
    yield f"{key} = ANY({array}::{kind}[])"


@dataclass(frozen=True)
class _Order:
    """The order of documents: a column, its type, and whether the greatest come first. Those without a value come last."""

    column: str
    type: str
    descending: bool

    @classmethod
    def of(cls, given: str | None, table: str, columns: Mapping[str, str]) -> "_Order":
        """Raises UsageError where the documents cannot be put into that order."""
        if given is None and USUAL not in columns:
            raise UsageError(
                f"documents.first: {table} has no column {USUAL}; name the one to go by, order_by='COLUMN DESC'"
            )
        name, _, direction = (given or f"{USUAL} DESC").strip().rpartition(" ")
        if direction.upper() not in ("ASC", "DESC"):
            name, direction = (given or "").strip(), "ASC"
        name = name.strip().removeprefix('"').removesuffix('"')
        if name not in columns:
            raise UsageError(f"order_by {given!r}: {table} has no column {name!r}; its columns: {', '.join(columns)}")
        return cls(name, columns[name], direction.upper() == "DESC")

    @property
    def sql(self) -> str:
        return f"d.{quoted(self.column)}"


def _before(
    connection: Connection, tables: ModelTables, conditions: Sequence[str], order: _Order, first: int
) -> list[str]:
    """Documents up to the last one of the first so many as they are now: what comes before it later is one of them."""
    documents = tables.documents
    key, way = f"d.{quoted(documents.key)}", "DESC" if order.descending else "ASC"
    where = " AND ".join(conditions) or "true"
    row = connection.execute(
        sql.SQL("SELECT {}::text, {}::text FROM {} AS d WHERE {} ORDER BY {} OFFSET {} LIMIT 1").format(
            sql.SQL(order.sql),
            sql.SQL(key),
            documents.identifier,
            sql.SQL(where),
            sql.SQL(f"{order.sql} {way} NULLS LAST, {key}"),
            sql.Literal(first - 1),
        )
    ).fetchone()
    if row is None:
        return []  # there are no more
    value, last = row
    tie = f"{key} <= {literal(last)}::{documents.key_type}"
    if value is None:
        return [f"({order.sql} IS NOT NULL OR {tie})"]
    bound = f"{literal(value)}::{order.type}"
    return [f"({order.sql} {'>' if order.descending else '<'} {bound} OR ({order.sql} = {bound} AND {tie}))"]
