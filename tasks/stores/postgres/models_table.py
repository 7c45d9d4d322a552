"""A table of models that is there before vecferry: what it says of each, and which vectors name it."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import columns_of
from tasks.stores.postgres.model_tables import ModelTables

NAME = "embedding_models"
NEEDED = ("id", "model_name")
DIMENSIONS = ("dimension", "dimensions")


@dataclass(frozen=True)
class KnownModel:
    """A row of it."""

    id: str
    """As text."""
    name: str
    provider: str | None
    dimensions: int
    active: bool | None
    """None where the table does not say."""


@dataclass(frozen=True)
class ModelsTable:
    """The table, beside the tables that it is of."""

    schema: str
    columns: Mapping[str, str]
    models: tuple[KnownModel, ...]
    foreign_keys: tuple[str, ...]
    """Constraints of the table of vectors that lead to it."""

    def __str__(self) -> str:
        return f"{self.schema}.{NAME}"


def models_table(connection: Connection, tables: ModelTables) -> ModelsTable | None:
    """The table of that name beside the chunks; None where there is none, or something else has the name."""
    identifier = sql.Identifier(tables.schema, NAME)
    row = connection.execute(
        "SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass(%s)", (identifier.as_string(),)
    ).fetchone()
    if row != (True,):
        return None
    columns = columns_of(connection, tables.schema, NAME)
    models = _models(connection, identifier, columns) if _lacks(columns) is None else ()
    keys = connection.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = to_regclass(%s) AND confrelid = to_regclass(%s) "
        "ORDER BY conname",
        (tables.embeddings.identifier.as_string(), identifier.as_string()),
    ).fetchall()
    return ModelsTable(tables.schema, columns, models, tuple(name for (name,) in keys))


def lacks(table: ModelsTable) -> str | None:
    """The column without which nobody can tell what its rows mean; None where it has all."""
    return _lacks(table.columns)


def most_used(connection: Connection, tables: ModelTables, table: ModelsTable) -> str | None:
    """The id of the model that is searched: the only active one, else the one with the most vectors."""
    active = [model.id for model in table.models if model.active]
    if len(active) == 1:
        return active[0]
    vectors = tables.embeddings
    if not relations.has_column(connection, vectors.identifier, vectors.model):
        return None
    row = connection.execute(
        sql.SQL(
            "SELECT {model}::text FROM {table} WHERE {model} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
        ).format(model=sql.Identifier(vectors.model), table=vectors.identifier)
    ).fetchone()
    return row[0] if row else None


def _lacks(columns: Mapping[str, str]) -> str | None:
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        return missing[0]
    return None if any(name in columns for name in DIMENSIONS) else DIMENSIONS[0]


def _models(connection: Connection, identifier: sql.Identifier, columns: Mapping[str, str]) -> tuple[KnownModel, ...]:
    dimensions = next(name for name in DIMENSIONS if name in columns)
    rows = connection.execute(
        sql.SQL("SELECT id::text, model_name::text, {}, {}::int, {} FROM {} ORDER BY id").format(
            sql.SQL("provider::text" if "provider" in columns else "NULL::text"),
            sql.Identifier(dimensions),
            sql.SQL("is_active::boolean" if columns.get("is_active") == "boolean" else "NULL::boolean"),
            identifier,
        )
    ).fetchall()
    return tuple(KnownModel(*row) for row in rows)
