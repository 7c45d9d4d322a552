"""Tables that serve several models at once: documents, the chunks that they are searched by, and the vectors of these, one row
a chunk and model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from psycopg import sql

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.base.words import listed
from tasks.stores.postgres.connection import Connection

INIT = "vecferry models init"


@dataclass(frozen=True)
class Roles:
    """What a user says of the tables: role of a column, or ``table``, → its name. What is not said is read from the catalogue."""

    documents: Mapping[str, str] = field(default_factory=dict)
    chunks: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Relation:
    """One of the tables of a set."""

    schema: str
    table: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class Documents(Relation):
    """What is searched for."""

    key: str
    key_type: str
    title: str | None
    text: str | None
    """None where only the chunks have the text."""
    metadata: str | None
    """A jsonb column."""


@dataclass(frozen=True)
class Chunks(Relation):
    """The pieces of documents that are embedded. A chunk may be its document: then ``document`` is the key."""

    key: str
    key_type: str
    document: str
    text: str
    position: str | None
    """The number of a chunk within its document."""
    metadata: str | None
    """A jsonb column."""


@dataclass(frozen=True)
class Embeddings(Relation):
    """The vectors, in a column for each number of dimensions."""

    chunk: str
    model: str
    model_type: str
    """SQL type of what names a model; bigint where the table is ours."""


@dataclass(frozen=True)
class ModelTables:
    """One set of such tables."""

    documents: Documents
    chunks: Chunks
    embeddings: Embeddings
    set_id: int = 0
    """Its number in the registry, which gives it."""

    @property
    def schema(self) -> str:
        """Where the views and functions of the set lie."""
        return self.chunks.schema

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "set_id"}


def from_json(data: Mapping[str, Any], set_id: int) -> ModelTables:
    """The tables that ``as_json`` wrote."""
    return ModelTables(
        stored.read(Documents, data["documents"]),
        stored.read(Chunks, data["chunks"]),
        stored.read(Embeddings, data["embeddings"]),
        set_id,
    )


def every(connection: Connection) -> list[ModelTables]:
    """All sets that there are, in the order in which they came."""
    if connection.execute("SELECT to_regclass('vecferry.model_tables') IS NULL").fetchone() == (True,):
        return []
    rows = connection.execute("SELECT set_id, roles FROM vecferry.model_tables ORDER BY set_id").fetchall()
    return [from_json(roles, set_id) for set_id, roles in rows]


def standing(connection: Connection) -> list[ModelTables]:
    """Those whose vectors are there as they were prepared: tables can be dropped, and made again, by hand."""
    return [one for one in every(connection) if _stands(connection, one.embeddings)]


def find(connection: Connection, roles: Roles | None = None) -> ModelTables:
    """The set that there is, or the one whose tables are named. Raises UsageError with the command that makes one."""
    asked = roles or Roles()
    sets = standing(connection)
    if not sets:
        raise UsageError(f"no tables of this database serve several models yet: `{INIT}` prepares them")
    meant = [one for one in sets if _is_meant(connection, one, asked)]
    if not meant:
        raise UsageError(
            f"the tables that roles name serve no models yet: `{INIT}` with the same roles prepares them; "
            f"there are {_named(sets)}"
        )
    if len(meant) > 1:
        raise UsageError(f"several sets of tables serve models, {_named(meant)}: name one with -p roles.chunks=TABLE")
    return meant[0]


def _stands(connection: Connection, vectors: Embeddings) -> bool:
    """By the catalogue, which tells it of schemas too that the user has no right to."""
    row = connection.execute(
        "SELECT 1 FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE (n.nspname, c.relname, a.attname) = (%s, %s, %s) AND NOT a.attisdropped",
        (vectors.schema, vectors.table, vectors.model),
    ).fetchone()
    return row is not None


def _named(sets: list[ModelTables]) -> str:
    return listed([str(one.chunks) for one in sets])


def _is_meant(connection: Connection, tables: ModelTables, asked: Roles) -> bool:
    pairs: tuple[tuple[Mapping[str, str], Documents | Chunks | Embeddings], ...] = (
        (asked.documents, tables.documents),
        (asked.chunks, tables.chunks),
        (asked.embeddings, tables.embeddings),
    )
    return all(_is(connection, given["table"], one.identifier) for given, one in pairs if given.get("table"))


def _is(connection: Connection, name: str, identifier: sql.Identifier) -> bool:
    row = connection.execute("SELECT to_regclass(%s) = to_regclass(%s)", (name, identifier.as_string())).fetchone()
    return row == (True,)
