"""What the models of a set of tables cover, and what their vectors take."""

from dataclasses import dataclass

from psycopg import sql

from tasks.runs import coverage, registry
from tasks.runs.coverage import lies_with_chunks
from tasks.runs.registry import RegisteredModel
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables


@dataclass(frozen=True)
class ModelStatus:
    """A model, and what it covers."""

    model: str
    dimensions: int
    active: bool
    """Whether it is the default of new searches and new documents."""
    searched: bool
    similarity_threshold: float | None
    chunks: int
    """Chunks with text."""
    with_vector: int


@dataclass(frozen=True)
class Storage:
    """Bytes of a model's vectors, and of the indexes on their column, which it may share with others."""

    vectors: int
    indexes: int


def statuses(connection: Connection, tables: ModelTables) -> list[ModelStatus]:
    """The models that there are, in the order in which they came."""
    covered = coverage.covered(connection, tables)
    return [
        ModelStatus(m.name, m.dimensions, m.active, m.searched, m.similarity_threshold, c.chunks, c.with_vector)
        for m in registry.listed(connection, tables)
        if (c := covered[m.number])
    ]


def storage(connection: Connection, tables: ModelTables, model: RegisteredModel) -> Storage:
    """Every row of the model is looked at."""
    of_model = (
        sql.SQL("true")
        if lies_with_chunks(tables, model)
        else sql.SQL("{} = {}").format(sql.Identifier(tables.embeddings.model), sql.Literal(model.id))
    )
    query = sql.SQL(
        "SELECT (SELECT coalesce(sum(pg_column_size({column})), 0)::bigint FROM {place} WHERE {of_model}), "
        "(SELECT coalesce(sum(pg_relation_size(i.indexrelid)), 0)::bigint FROM pg_index i WHERE EXISTS (SELECT FROM pg_depend d "
        "JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_class'::regclass "
        "AND d.objid = i.indexrelid AND d.refobjid = %s::regclass AND a.attname = %s))"
    ).format(column=sql.Identifier(model.column), place=model.place, of_model=of_model)
    row = connection.execute(query, (model.place.as_string(), model.column)).fetchone()
    assert row
    return Storage(*row)
