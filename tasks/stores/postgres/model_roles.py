"""Which tables and columns play which part for several models: what a user says, and else what foreign keys and usual names tell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import errors, sql

from tasks.base.errors import UsageError
from tasks.base.words import listed
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import columns_of, place
from tasks.stores.postgres.model_tables import Chunks, Documents, Embeddings, ModelTables, Roles

DOCUMENTS, CHUNKS, EMBEDDINGS = "documents", "document_chunks", "chunk_embeddings"
"""What the tables are called where nobody says otherwise."""
TEXTS = ("content", "text", "chunk_text", "chunk", "body", "passage")
TITLES = ("title", "name", "filename", "file_name")
POSITIONS = ("chunk_index", "position", "ordinal", "chunk_number", "chunk_no", "seq", "idx")
TEXT_TYPES = ("text", "character varying", "citext")
MADE = ModelTables(
    Documents("public", DOCUMENTS, "id", "bigint", "title", "content", "metadata"),
    Chunks("public", CHUNKS, "id", "bigint", "document_id", "content", "chunk_index", "metadata"),
    Embeddings("public", EMBEDDINGS, "chunk_id", "model_id", "bigint"),
)
"""The tables as sql/expand_documents.sql and sql/expand_embeddings.sql make them."""


@dataclass(frozen=True)
class Detected:
    """The tables as they are, or will be."""

    tables: ModelTables
    makes_documents: bool
    """Whether documents and chunks are to be made."""
    makes_embeddings: bool


@dataclass(frozen=True)
class _Table:
    role: str
    schema: str
    name: str
    columns: Mapping[str, str]
    asked: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def column(self, part: str, usual: Iterable[str], types: Sequence[str] = ()) -> str | None:
        """The column that plays the part: as it is named, else the first usual one of these types that there is."""
        if name := self.asked.get(part):
            if name not in self.columns:
                raise UsageError(
                    f"{self} has no column {name!r}, which -p roles.{self.role}.{part} names; it has {listed(list(self.columns))}"
                )
            return name
        return next((n for n in usual if n in self.columns and (not types or self.columns[n] in types)), None)

    def needed(self, part: str, column: str | None, what: str) -> str:
        """Raises UsageError that says how to name it where there is none."""
        if column is None:
            raise UsageError(
                f"which column of {self} {what}? Name it with -p roles.{self.role}.{part}=COLUMN; it has "
                f"{listed(list(self.columns))}"
            )
        return column


def detected(connection: Connection, roles: Roles, create: bool = False) -> Detected:
    """The tables that play the parts. Where neither documents nor chunks are there and no table of the database has vectors,
    or with ``create``, they are to be made. Raises UsageError that names what is missing and how to name it."""
    vectors = _table(connection, "embeddings", roles.embeddings, EMBEDDINGS)
    likely = _refers(connection, vectors, "chunk") if vectors else None
    chunks = _table(connection, "chunks", roles.chunks, likely, CHUNKS)
    if chunks is None:
        return _to_be_made(connection, roles, create)
    documents = _table(connection, "documents", roles.documents, _refers(connection, chunks, "document"), DOCUMENTS)
    if documents is None:
        raise UsageError(
            f"no foreign key of {chunks} leads to a table of documents: name it with -p roles.documents=TABLE; where a chunk is "
            f"its own document, that is {chunks}"
        )
    tables = ModelTables(
        _documents(connection, documents),
        _chunks(connection, chunks, documents),
        _embeddings(connection, vectors, chunks, roles),
    )
    return Detected(tables, False, vectors is None)


def _documents(connection: Connection, table: _Table) -> Documents:
    key = _key(connection, table)
    return Documents(
        table.schema,
        table.name,
        key,
        table.columns[key],
        table.column("title", TITLES, TEXT_TYPES),
        table.column("text", TEXTS, TEXT_TYPES),
        table.column("metadata", ["metadata"], ("jsonb",)),
    )


def _chunks(connection: Connection, table: _Table, documents: _Table) -> Chunks:
    key = _key(connection, table)
    same = (table.schema, table.name) == (documents.schema, documents.name)
    document = _foreign_key(connection, table, documents) or ("document_id" if "document_id" in table.columns else None)
    texts = [name for name, kind in table.columns.items() if kind in TEXT_TYPES and name != key]
    text = table.column("text", [*TEXTS, *(texts if len(texts) == 1 else [])], TEXT_TYPES)
    return Chunks(
        table.schema,
        table.name,
        key,
        table.columns[key],
        key if same else table.needed("document", table.column("document", [document or ""]), "names its document"),
        table.needed("text", text, "is the text"),
        table.column("position", POSITIONS, ("integer", "bigint", "smallint")),
        table.column("metadata", ["metadata"], ("jsonb",)),
    )


def _embeddings(connection: Connection, table: _Table | None, chunks: _Table, roles: Roles) -> Embeddings:
    asked = roles.embeddings
    if table is None:
        schema, name = _split(asked.get("table", EMBEDDINGS), chunks.schema)
        usual = MADE.embeddings
        return Embeddings(schema, name, asked.get("chunk", usual.chunk), asked.get("model", usual.model), "bigint")
    chunk = _foreign_key(connection, table, chunks) or "chunk_id"
    model = asked.get("model", "model_id")
    return Embeddings(
        table.schema,
        table.name,
        table.needed("chunk", table.column("chunk", [chunk]), "names its chunk"),
        model,
        table.columns.get(model, "bigint"),
    )


def _to_be_made(connection: Connection, roles: Roles, create: bool) -> Detected:
    given = roles.documents.keys() | roles.chunks.keys() | roles.embeddings.keys()
    if others := _with_vectors(connection):
        if not create:
            raise UsageError(
                f"there is no table {roles.chunks.get('table', CHUNKS)}; tables with vectors are {listed(others)}: name the chunks with "
                "-p roles.chunks=TABLE, and the table of their vectors with -p roles.embeddings=TABLE where that is another one; "
                "-p create=true makes new tables"
            )
    elif given - {"table"}:
        raise UsageError("roles name columns of tables that are not there; new tables have columns of their own")
    schema = connection.execute("SELECT coalesce(current_schema(), 'public')").fetchone()
    assert schema
    chunk_schema, chunk_table = _split(roles.chunks.get("table", CHUNKS), schema[0])
    document_schema, document_table = _split(roles.documents.get("table", DOCUMENTS), chunk_schema)
    schema_of_vectors, table_of_vectors = _split(roles.embeddings.get("table", EMBEDDINGS), chunk_schema)
    if document_schema != chunk_schema:
        raise UsageError(
            f"new documents and chunks lie in one schema, not in {document_schema} and {chunk_schema}: name both in one"
        )
    for made in ((document_schema, document_table), (schema_of_vectors, table_of_vectors)):
        if connection.execute("SELECT to_regclass(%s)", (sql.Identifier(*made).as_string(),)).fetchone() != (None,):
            raise UsageError(
                f"there is a table {'.'.join(made)}, and no table {chunk_schema}.{chunk_table} of chunks: name yours with "
                "-p roles.chunks=TABLE"
            )
    return Detected(
        ModelTables(
            replace(MADE.documents, schema=document_schema, table=document_table),
            replace(MADE.chunks, schema=chunk_schema, table=chunk_table),
            replace(MADE.embeddings, schema=schema_of_vectors, table=table_of_vectors),
        ),
        True,
        True,
    )


def _table(connection: Connection, role: str, asked: Mapping[str, str], *usual: str | None) -> _Table | None:
    """The table that is named, which must be there, or else the first of the usual ones that is."""
    named = asked.get("table")
    for name in [named] if named else filter(None, usual):
        row = _resolved(connection, name)
        if row is None and not named:
            continue
        if row is None and role != "documents":
            return None if role == "embeddings" else _missing(connection, name)
        schema, table = place(connection, name)
        return _Table(role, schema, table, columns_of(connection, schema, table), asked)
    return None


def _missing(connection: Connection, name: str) -> _Table | None:
    """Of chunks that are named: they may be made where there is nothing yet."""
    if _with_vectors(connection):
        place(connection, name)  # tells what could be meant
    return None


def _resolved(connection: Connection, name: str) -> int | None:
    try:
        row = connection.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone()
    except errors.SyntaxError as error:
        raise UsageError(f'{name!r} does not name a table: write schema.table or "Quoted Name"') from error
    return row[0] if row else None


def _key(connection: Connection, table: _Table) -> str:
    if name := table.column("key", []):
        return name
    rows = connection.execute(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
        "WHERE i.indrelid = to_regclass(%s) AND i.indisprimary",
        (sql.Identifier(table.schema, table.name).as_string(),),
    ).fetchall()
    if len(rows) != 1:
        has = "no primary key" if not rows else "a primary key of several columns"
        raise UsageError(
            f"{table} has {has}: name a unique column of it with -p roles.{table.role}.key=COLUMN; it has "
            f"{listed(list(table.columns))}"
        )
    return str(rows[0][0])


_FOREIGN_KEYS = (
    "SELECT a.attname, format('%%I.%%I', n.nspname, c.relname), c.oid::int8 FROM pg_constraint f "
    "JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
    "JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1] "
    "WHERE f.conrelid = to_regclass(%s) AND f.contype = 'f' AND cardinality(f.conkey) = 1 ORDER BY f.oid"
)


def _foreign_key(connection: Connection, table: _Table, other: _Table) -> str | None:
    """The column that leads to the other table, where one does."""
    rows = connection.execute(_FOREIGN_KEYS, (sql.Identifier(table.schema, table.name).as_string(),)).fetchall()
    target = _resolved(connection, sql.Identifier(other.schema, other.name).as_string())
    columns = [column for column, _, oid in rows if oid == target]
    return columns[0] if len(columns) == 1 else None


def _refers(connection: Connection, table: _Table, part: str) -> str | None:
    """The table that the column of this part leads to, or the only one that any column leads to."""
    rows = connection.execute(_FOREIGN_KEYS, (sql.Identifier(table.schema, table.name).as_string(),)).fetchall()
    own = table.asked.get("model", "model_id")
    named = table.asked.get(part)
    candidates = [
        name for column, name, _ in rows if (column == named if named else column not in (own, f"parent_{part}_id"))
    ]
    likely = [name for column, name, _ in rows if column == f"{part}_id"] if not named else []
    return (likely or (candidates if len(set(candidates)) == 1 else []) or [None])[0]


def _with_vectors(connection: Connection) -> list[str]:
    rows = connection.execute(
        "SELECT DISTINCT format('%I.%I', n.nspname, c.relname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid "
        "WHERE t.typname IN ('vector', 'halfvec') AND c.relkind = 'r' AND n.nspname <> 'vecferry' ORDER BY 1 LIMIT 10"
    ).fetchall()
    return [name for (name,) in rows]


def _split(name: str, schema: str) -> tuple[str, str]:
    """Schema and name of a table that is to be made."""
    first, dot, second = name.partition(".")
    if not name or "%" in name or '"' in name or "." in second:
        raise UsageError(f"{name!r} cannot name a new table: write schema.table")
    return (first, second) if dot else (schema, first)
