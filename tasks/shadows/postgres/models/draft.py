"""What there is of tables that are to serve several models."""

from dataclasses import dataclass, field

from tasks.base.errors import UsageError
from tasks.embedders.interface import Space
from tasks.runs.names import short
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.fixed_column import (
    UniqueKey,
    VectorColumn,
    fixed_column,
    one_row_a_chunk,
    one_row_a_chunk_and_model,
    unique_keys,
    vector_columns,
)
from tasks.stores.postgres.live_table import columns_of
from tasks.stores.postgres.model_roles import detected
from tasks.stores.postgres.model_tables import Embeddings, ModelTables, Roles
from tasks.stores.postgres.models_table import ModelsTable, models_table


@dataclass(frozen=True)
class Source:
    """The model whose vectors the tables came with."""

    name: str
    space: Space | None
    """None where nobody can open it."""


@dataclass(frozen=True)
class Asked:
    """What ``init`` is asked for."""

    roles: Roles = field(default_factory=Roles)
    source: Source | None = None
    create: bool = False
    """New tables, though others of the database have vectors."""
    adopt: bool = False
    """A table of models becomes the view of the registry."""
    replace_unique: bool = False
    """One row a chunk and model in place of a key that allows one row a chunk."""


@dataclass(frozen=True)
class Draft:
    """What there is."""

    tables: ModelTables
    begun: bool
    """Whether the registry has the tables already."""
    makes_documents: bool = False
    makes_embeddings: bool = False
    fixed: VectorColumn | None = None
    """The column of vectors, where there is one and nothing says of which model."""
    columns: tuple[VectorColumn, ...] = ()
    """All columns of vectors of the table of vectors."""
    known: ModelsTable | None = None
    """A table that says which models there are."""
    narrow: UniqueKey | None = None
    """What allows a chunk only one row."""
    keyed: bool = True
    """Whether chunk and model are a key already; an index that is to become ours is none yet."""


def draft(connection: Connection, asked: Asked) -> Draft:
    """What there is. Raises UsageError where the tables cannot be told."""
    tables = _registered(connection, asked.roles)
    if tables:
        narrow, keyed = _keys(connection, tables)
        return Draft(tables, True, narrow=narrow, keyed=keyed)
    seen = detected(connection, asked.roles, asked.create)
    tables = seen.tables
    known = None if seen.makes_documents else models_table(connection, tables)
    vectors = tables.embeddings
    named = not seen.makes_embeddings and vectors.model in columns_of(connection, vectors.schema, vectors.table)
    fixed = None if named else fixed_column(connection, seen, asked.roles)
    columns = () if seen.makes_embeddings else tuple(vector_columns(connection, vectors))
    narrow, keyed = (None, True) if seen.makes_embeddings else _keys(connection, tables)
    return Draft(tables, False, seen.makes_documents, seen.makes_embeddings, fixed, columns, known, narrow, keyed)


def _registered(connection: Connection, roles: Roles) -> ModelTables | None:
    """The set whose tables are meant, where it has been begun."""
    try:
        return model_tables.find(connection, roles)
    except UsageError:
        return None


def _keys(connection: Connection, tables: ModelTables) -> tuple[UniqueKey | None, bool]:
    keys = unique_keys(connection, tables.embeddings.identifier)
    key = one_row_a_chunk_and_model(keys, tables.embeddings)
    half_made = key is not None and key.constraint is None and key.index == key_name(tables.embeddings)
    return one_row_a_chunk(keys, tables.embeddings), key is not None and not half_made


def key_name(vectors: Embeddings) -> str:
    """What the key of one row a chunk and model is called where we make it."""
    return short(f"{vectors.table}_chunk_model_key", 63)
