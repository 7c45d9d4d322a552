"""What tables that serve several models have come to: models, coverage, columns and indexes, for people."""

from dataclasses import dataclass
from typing import Any

from tasks.runs import coverage, purchases, registry
from tasks.runs.coverage import Coverage
from tasks.runs.purchases import Purchases
from tasks.runs.registry import RegisteredModel
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables


@dataclass(frozen=True)
class Index:
    """An index of vectors."""

    schema: str
    name: str
    column: str
    """What is indexed, as SQL."""
    valid: bool
    bytes: int
    condition: str | None
    """Of the rows that it has; None for all."""


@dataclass(frozen=True)
class Status:
    """Of one set of tables."""

    tables: ModelTables
    models: tuple[RegisteredModel, ...]
    coverage: dict[int, Coverage]
    indexes: tuple[Index, ...]
    counted: bool
    """Whether the counters tell of all that is there."""
    bought: tuple[Purchases, ...]
    """Outside of runs, whichever tables it was for."""

    @property
    def dimensions(self) -> list[int]:
        """Those that can be searched."""
        return sorted({model.dimensions for model in self.models})

    def as_json(self) -> dict[str, Any]:
        return {
            "documents": str(self.tables.documents),
            "chunks": str(self.tables.chunks),
            "embeddings": str(self.tables.embeddings),
            "dimensions": self.dimensions,
            "models": [_model(model, self.coverage[model.number]) for model in self.models],
            "indexes": [vars(index) for index in self.indexes],
            "bought": [purchases.as_json() for purchases in self.bought],
        }


def status(connection: Connection, tables: ModelTables) -> Status:
    """The set as it is now."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        known = registry.listed(connection, tables)
        return Status(
            tables,
            tuple(known),
            coverage.covered(connection, tables),
            tuple(indexes(connection, tables)),
            coverage.is_counted(connection, tables),
            tuple(purchases.purchases(connection)),
        )


def _model(model: RegisteredModel, of_model: Coverage) -> dict[str, Any]:
    return {
        "id": model.id,
        "name": model.name,
        "provider": model.provider,
        "dimension": model.dimensions,
        "distance": model.metric,
        "normalized": model.normalized,
        "space": model.space,
        "similarity_threshold": model.similarity_threshold,
        "active": model.active,
        "ended": model.ended,
        "building": model.building,
        "column": f"{model.place_schema}.{model.place_table}.{model.column}",
        "chunks": of_model.chunks,
        "with_vector": of_model.with_vector,
        "refused": of_model.refused,
        "missing": of_model.missing,
    }


def indexes(connection: Connection, tables: ModelTables) -> list[Index]:
    """Those of vectors, of the table of vectors and of that of the chunks."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname, pg_get_indexdef(i.indexrelid, 1, true), i.indisvalid, pg_relation_size(i.indexrelid)::int8, "
        "pg_get_expr(i.indpred, i.indrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE i.indrelid IN (to_regclass(%s), to_regclass(%s)) AND m.amname IN ('hnsw', 'ivfflat') ORDER BY c.relname",
        (tables.embeddings.identifier.as_string(), tables.chunks.identifier.as_string()),
    ).fetchall()
    return [Index(*row) for row in rows]
