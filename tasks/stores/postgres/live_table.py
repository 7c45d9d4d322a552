"""A table that an application reads and writes while we work on it: how its rows are named, what they say, and the SQL
for both."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.stores.postgres import vectors
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.expression import Expression
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.table import Table
from tasks.stores.postgres.vectors import Vectors

_PLACE = re.compile(r"\{([^{}]*)\}")
PLAIN = {"smallint", "integer", "bigint", "numeric", "boolean", "uuid", "text", "character varying", "character", "bit"}
"""Types whose text is the same in every session; the usual ones, not all."""
OF_ANY_LENGTH = {"character": "bpchar", "bit": "bit varying"}
_ESCAPED = re.compile(r"[\x00-\x1f\x7f\\%]")


@dataclass(frozen=True)
class Column:
    """A column and its SQL type."""

    name: str
    type: str

    @property
    def quoted(self) -> str:
        return quoted(self.name)

    @property
    def cast(self) -> str:
        """The type that a value's text is read as: of any length, where the name of the type stands for the length 1."""
        return OF_ANY_LENGTH.get(self.type, self.type)

    def text(self, value: str) -> str:
        """SQL of a value as text in a session of ``connect``, which sets what decides on it, save for the time zone."""
        return f"({self._local(value)}::text || '+00')" if self._local(value) != value else f"{value}::text"

    def noted(self, value: str) -> str:
        """The same in anybody's session."""
        if self.type.partition("(")[0] in PLAIN:
            return self.text(value)
        text = f"vecferry.key_text({self._local(value)})"
        return f"({text} || '+00')" if self._local(value) != value else text

    @property
    def expression(self) -> Expression:
        """The column itself."""
        return Expression(("", self.name, ""))

    def _local(self, value: str) -> str:
        return f"({value} AT TIME ZONE 'UTC')" if self.type == "timestamp with time zone" else value


@dataclass(frozen=True)
class LiveTable:
    """Which rows, and which document of each."""

    schema: str
    table: str
    key: tuple[Column, ...]
    text: str
    """Template of columns in braces: ``{title}: {body}``."""
    vectors: str
    """The column of the old vectors."""
    layout: Layout
    """Of the old vectors."""
    limit: int | None = None
    beside: tuple[str, str] | None = None
    """Schema and name of the view that has the old vectors, where they lie beside the table: each row's key, text and
    vector."""
    label: str | None = None
    """The column that tells what a row shows, for the report."""
    expression: Expression | None = None
    """What a row's document is, where it is more than its columns put together; ``text`` names the columns all the same."""
    apart: Vectors | None = None
    """Where the old vectors lie in another table of the application's."""
    only: Expression | None = None
    """Condition of the rows that are meant; None: all."""

    @property
    def columns(self) -> list[str]:
        """Those that the document is made of."""
        return text_columns(self.text)

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    @property
    def records(self) -> Table:
        """The rows that have one as records: key, text, old vector."""
        if self.apart:
            return self.by(self.apart, self.layout, self.vectors)
        return Table(
            *(self.beside or (self.schema, self.table)),
            self.layout,
            self.id(),
            quoted(self.vectors),
            f"{self.document()}, NULL::text, NULL::text",
            label=None if self.beside else self.label,
        )

    @property
    def old(self) -> Vectors:
        """Where the old vectors lie."""
        schema, table = self.beside or (self.schema, self.table)
        return self.apart or Vectors(schema, table, self.vectors, tuple(column.name for column in self.key))

    @property
    def relation(self) -> sql.Composable:
        """The rows that are meant, as a FROM has them before an alias."""
        if self.only is None:
            return self.identifier
        return sql.SQL("(SELECT b.* FROM {} AS b WHERE {})").format(self.identifier, sql.SQL(self.only.sql("b")))

    def rows(self, vector: str) -> Table:
        """All rows that are meant as records, with this SQL of a vector over those of ``meant``."""
        rows = f"{self.relation.as_string()} AS meant"
        content = f"{self.document()}, NULL::text, NULL::text"
        return Table(self.schema, self.table, self.layout, self.id(), vector, content, rows=rows)

    def old_vector(self) -> str:
        """SQL of the old vector of a row of ``meant``."""
        old = self.old
        if (old.schema, old.table) == (self.schema, self.table):
            return quoted(self.vectors)
        same = old.same("v", [f"meant.{column.quoted}" for column in self.key])
        return f"(SELECT v.{quoted(old.column)} FROM {old.identifier.as_string()} AS v WHERE {same})"

    def by(self, vectors: Vectors, layout: Layout, name: str) -> Table:
        """The rows that are meant and have one of these vectors, which is called ``name``, as records."""
        label = [] if self.label is None else [self.label]
        columns = dict.fromkeys([*(column.name for column in self.key), *self.columns, *label])
        chosen = ", ".join(f"b.{quoted(column)}" for column in columns)
        same = vectors.same("v", [f"b.{column.quoted}" for column in self.key])
        only = f" AND {self.only.sql('b')}" if self.only else ""
        rows = (
            f"(SELECT {chosen}, v.{quoted(vectors.column)} AS {quoted(name)} FROM {vectors.identifier.as_string()} AS v "
            f"JOIN {self.identifier.as_string()} AS b ON {same} WHERE v.{quoted(vectors.column)} IS NOT NULL{only}) AS meant"
        )
        content = f"{self.document()}, NULL::text, NULL::text"
        return Table(
            vectors.schema, vectors.table, layout, self.id(), quoted(name), content, label=self.label, rows=rows
        )

    def id(self, alias: str = "") -> str:
        """SQL of a row's name: its key as text, and as a JSON array where it is of several columns."""
        return _named([column.text(f"{_of(alias)}{column.quoted}") for column in self.key])

    def noted_id(self, alias: str) -> str:
        """SQL of the same in the session of whoever writes."""
        return _named([column.noted(f"{_of(alias)}{column.quoted}") for column in self.key])

    def document(self, alias: str = "") -> str:
        """SQL of a row's document: null where every column of the template is, and where it is empty."""
        if self.expression:
            return f"nullif({self.expression.sql(alias)}::text, '')"
        columns = [f"{_of(alias)}{quoted(name)}" for name in text_columns(self.text)]
        if self.text == f"{{{text_columns(self.text)[0]}}}":
            return f"nullif({columns[0]}::text, '')"
        pieces = _PLACE.split(self.text)  # literal, column, literal, …
        parts = [literal(p) if at % 2 == 0 else f"{_of(alias)}{quoted(p)}" for at, p in enumerate(pieces) if p]
        empty = " AND ".join(f"{column} IS NULL" for column in columns)
        return f"CASE WHEN {empty} THEN NULL ELSE nullif(concat({', '.join(parts)}), '') END"

    def hash(self, alias: str = "") -> str:
        """SQL of tasks.stores.canonical.content_hash of the row's text, null where it has none."""
        document = self.document(alias)
        length = f"octet_length(convert_to({document}, 'UTF8'))"  # the server's own encoding may have fewer bytes
        return f"sha256(convert_to('+' || {length} || ':' || {document} || '--', 'UTF8'))"

    def parts(self, name: str) -> list[str]:
        """SQL of the key columns' values, of the SQL of a row's name: what ``id`` puts together."""
        if len(self.key) == 1:
            return [f"{name}::{self.key[0].cast}"]
        return [f"({name}::jsonb ->> {at})::{column.cast}" for at, column in enumerate(self.key)]

    def numbered(self, alias: str = "") -> list[str]:
        """k1, k2, …: what the key columns are called in tables of ours."""
        return [f"{_of(alias)}k{n}" for n in range(1, len(self.key) + 1)]

    def same(self, copy: str, row: str) -> str:
        """SQL: the row ``copy`` of a table of ours has the key of the row ``row`` of this one."""
        pairs = zip(self.numbered(copy), self.key, strict=True)
        return " AND ".join(f"{n} = {_of(row)}{column.quoted}" for n, column in pairs)


def name_of_row(key: Sequence[Column]) -> Expression:
    """What ``LiveTable.id`` gives, over the columns of a row."""
    parts = [Expression.of(*_around(column)) for column in key]
    if len(parts) == 1:
        return parts[0]
    listed = [part for one in parts for part in (", ", one)][1:]
    return Expression.of("jsonb_build_array(", *listed, ")::text")


def _around(column: Column) -> tuple[str, Expression, str]:
    before, after = column.text("\0").split("\0")
    return before, column.expression, after


def place(connection: Connection, name: str) -> tuple[str, str]:
    """Schema and name of a table as SQL names it. Raises UsageError when there is none, or it is no plain table."""
    row = connection.execute(
        "SELECT c.relnamespace::regnamespace::text, c.relname, c.relkind::text, n.nspname FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
        (name,),
    ).fetchone()
    if row is None:
        raise UsageError(
            f'there is no table {name}: name yours as SQL would, schema.table or "Quoted Name"; {_with_vectors(connection)}'
        )
    if row[2] != "r":
        raise UsageError(
            f"{name} is not an ordinary table (pg_class.relkind {row[2]!r}): views and partitioned tables are "
            "not supported"
        )
    return row[3], row[1]


def columns_of(connection: Connection, schema: str, table: str) -> dict[str, str]:
    """The columns of a table and their types, in their order."""
    return dict(
        connection.execute(
            # Of these two the bare name stands for a length of 1.
            "SELECT attname, format_type(atttypid, CASE WHEN atttypid::regtype::text IN ('character', 'character[]', 'bit', 'bit[]') "
            "THEN atttypmod END) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (sql.Identifier(schema, table).as_string(),),
        ).fetchall()
    )


def _with_vectors(connection: Connection) -> str:
    """The tables that could be meant."""
    rows = connection.execute(
        "SELECT DISTINCT n.nspname, c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n "
        "ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid WHERE t.typname IN ('vector', 'halfvec') "
        "AND c.relkind = 'r' AND n.nspname <> 'vecferry' ORDER BY 1, 2 LIMIT 10"
    ).fetchall()
    names = ", ".join(sql.Identifier(*row).as_string() for row in rows)
    return f"tables with vectors: {names}" if names else "no table of this database has vectors"


def from_json(data: dict[str, Any]) -> LiveTable:
    """The table that ``dataclasses.asdict`` wrote."""
    key = [stored.read(Column, column) for column in data["key"]]
    layout, apart = stored.read(Layout, data["layout"]), data.get("apart") and vectors.from_json(data["apart"])
    expressions = {name: data.get(name) and Expression(tuple(data[name]["pieces"])) for name in ("expression", "only")}
    return stored.read(LiveTable, {**data, "key": key, "layout": layout, "apart": apart, **expressions})


def text_columns(template: str) -> list[str]:
    """The columns that a template names. Raises UsageError where it names none."""
    columns = list(dict.fromkeys(_PLACE.findall(template)))
    if not columns or "" in columns:
        raise UsageError(f"text {template!r}: name columns in braces, as in {{title}}: {{body}}")
    return columns


def quoted(name: str) -> str:
    """An identifier, quoted."""
    return sql.Identifier(name).as_string()


def literal(text: str) -> str:
    """A text literal on one line, and without a %, which psycopg would take for a placeholder."""
    escaped = _ESCAPED.sub(lambda c: f"\\{ord(c[0]):04x}", text).replace("'", "''")
    return f"U&'{escaped}'" if _ESCAPED.search(text) else f"'{escaped}'"


def _named(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"jsonb_build_array({', '.join(parts)})::text"


def _of(alias: str) -> str:
    return f"{alias}." if alias else ""
