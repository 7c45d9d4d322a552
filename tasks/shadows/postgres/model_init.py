"""Preparing tables to serve several models: what is missing is made, and the column of vectors that they came with is taken over
as that of its model, without a row being rewritten."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from psycopg import sql

from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.embedders.interface import Space
from tasks.runs import coverage, ledger_versions, registry
from tasks.shadows.postgres import extension, model_pieces
from tasks.shadows.postgres.model_changes import Change, registry_changed, send, send_one_by_one
from tasks.shadows.postgres.model_indexes import indexes
from tasks.stores.postgres import model_tables, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.fixed_column import (
    UniqueKey,
    VectorColumn,
    fixed_column,
    one_row_a_chunk,
    one_row_a_chunk_and_model,
    unique_keys,
)
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_roles import Detected, detected
from tasks.stores.postgres.model_tables import INIT, ModelTables, Roles


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
    replace_unique: bool = False
    """One row a chunk and model in place of a key that allows one row a chunk."""


@dataclass(frozen=True)
class Draft:
    """What there is, and what is to be done."""

    tables: ModelTables
    detected: Detected | None
    """None where the registry has the tables already."""
    fixed: VectorColumn | None
    narrow: UniqueKey | None
    """What allows a chunk only one row."""
    keyed: bool
    """Whether chunk and model are a key already."""
    problems: list[str] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        return self.detected is None


def draft(connection: Connection, asked: Asked) -> Draft:
    """What there is, and what stands in the way. Raises UsageError where the tables cannot be told."""
    tables = _registered(connection, asked.roles)
    seen = None if tables else detected(connection, asked.roles, asked.create)
    if seen is None:
        assert tables
        narrow, keyed = _keys(connection, tables)
        return Draft(tables, None, None, narrow, keyed, list(_key_problems(connection, tables, narrow, keyed, asked)))
    tables = seen.tables
    fixed = fixed_column(connection, seen, asked.roles)
    narrow, keyed = (None, True) if seen.makes_embeddings else _keys(connection, tables)
    problems = [
        *_problems(connection, seen, fixed, asked),
        *([] if seen.makes_embeddings else _key_problems(connection, tables, narrow, keyed, asked)),
    ]
    return Draft(tables, seen, fixed, narrow, keyed, problems)


def changes(connection: Connection, planned: Draft, asked: Asked) -> list[Change]:
    """All that would be sent, in order: what a plan shows. The numbers are those that the registry would give."""
    set_id, number = _next(connection, "model_tables", "set_id"), _next(connection, "model", "model")
    if planned.begun:
        return [*_later(connection, planned)]
    tables = replace(planned.tables, set_id=set_id)
    model = _model(tables, planned.fixed, asked, number)
    searches = model_pieces.functions(connection, tables, [model] if model else [])
    later = _later(connection, replace(planned, tables=tables), model)
    return [*_first(connection, planned, tables, model), searches, *later]


def initialise(connection: Connection, asked: Asked) -> tuple[ModelTables, list[str]]:
    """Prepares the tables; returns them, and what was done. It can be called again, and goes on where it was cut off. Raises
    UsageError with all that stands in the way, before anything is changed."""
    planned = draft(connection, asked)
    if planned.problems:
        raise UsageError("; ".join(planned.problems))
    ledger_versions.ensure(connection)
    extension.prepare(connection)
    done: list[str] = []
    if not planned.begun:
        tables, done = locked(connection, lambda: _begin(connection, planned, asked))
        planned = replace(planned, tables=tables, detected=None)
    done += send_one_by_one(connection, _later(connection, planned))
    if not coverage.is_counted(connection, planned.tables):
        coverage.count_once(connection, planned.tables)
    return planned.tables, done


def _begin(connection: Connection, planned: Draft, asked: Asked) -> tuple[ModelTables, list[str]]:
    """All that can be one transaction, the registry's rows among it."""
    before = {"fixed": planned.fixed.name} if planned.fixed else {}
    tables = registry.add_tables(connection, planned.tables, coverage.counts_of_chunk(planned.tables, []), before)
    model = None
    if planned.fixed:
        assert asked.source
        model = registry.register(
            connection,
            tables,
            asked.source.name,
            asked.source.space or planned.fixed.dimensions or 0,
            registry.Place(planned.fixed.schema, planned.fixed.table, planned.fixed.name, planned.fixed.type),
            planned.fixed.metric,
        )
    done = send(connection, _first(connection, planned, tables, model))
    coverage.note_counts(connection, tables)
    registry_changed(connection, tables)
    return tables, done


def _first(
    connection: Connection, planned: Draft, tables: ModelTables, model: registry.RegisteredModel | None
) -> Iterator[Change]:
    assert planned.detected
    if planned.detected.makes_documents:
        yield model_pieces.documents(tables)
    if planned.detected.makes_embeddings:
        yield from model_pieces.embeddings(connection, tables)
    elif not relations.has_column(connection, tables.embeddings.identifier, tables.embeddings.model):
        yield model_pieces.model_column(tables, model.number if model else None)
    if planned.fixed and planned.fixed.never_null and model and not coverage.lies_with_chunks(tables, model):
        yield model_pieces.may_be_null(tables.embeddings, planned.fixed.name)
    known = [model] if model else []
    yield model_pieces.count_chunks(tables, known)
    yield model_pieces.count_embeddings(tables, known)
    yield model_pieces.view(connection, tables)


def _later(connection: Connection, planned: Draft, model: registry.RegisteredModel | None = None) -> Iterator[Change]:
    """What takes long, or must be alone."""
    if not planned.keyed:
        yield from model_pieces.unique_key(planned.tables, planned.narrow)
    known = registry.listed(connection, planned.tables) if planned.begun else [model] if model else []
    yield from indexes(connection, planned.tables, known)


def _registered(connection: Connection, roles: Roles) -> ModelTables | None:
    """The set whose tables are meant, where it has been begun."""
    sets = model_tables.every(connection)
    if not roles.chunks.get("table") and not roles.embeddings.get("table") and not sets:
        return None
    try:
        return model_tables.find(connection, roles)
    except UsageError:
        return None


def _model(
    tables: ModelTables, fixed: VectorColumn | None, asked: Asked, number: int
) -> registry.RegisteredModel | None:
    """As the registry will have it."""
    if fixed is None or asked.source is None:
        return None
    return registry.RegisteredModel(
        number,
        str(number),
        asked.source.name,
        asked.source.name.partition("/")[0],
        fixed.dimensions or 0,
        fixed.metric,
        None,
        "",
        None,
        True,
        False,
        False,
        fixed.schema,
        fixed.table,
        fixed.name,
        fixed.type,
    )


def _keys(connection: Connection, tables: ModelTables) -> tuple[UniqueKey | None, bool]:
    keys = unique_keys(connection, tables.embeddings.identifier)
    return one_row_a_chunk(keys, tables.embeddings), one_row_a_chunk_and_model(keys, tables.embeddings) is not None


def _problems(connection: Connection, seen: Detected, fixed: VectorColumn | None, asked: Asked) -> Iterator[str]:
    tables = seen.tables
    vectors = tables.embeddings
    if fixed and asked.source is None:
        yield (
            f"{fixed} holds vectors of {counted(fixed.dimensions or 0, 'dimension')}, and nobody has said of which model: name it with "
            "-p source_model=PROVIDER/MODEL, or -p source_model=unknown"
        )
    if fixed and asked.source and asked.source.space and asked.source.space.dimensions != fixed.dimensions:
        yield (
            f"{asked.source.name} makes vectors of {counted(asked.source.space.dimensions, 'dimension')}, and {fixed} has "
            f"{fixed.dimensions}: name the model that made those"
        )
    if not seen.makes_embeddings and relations.has_column(connection, vectors.identifier, vectors.model):
        yield f"{vectors} has a column {vectors.model} already: name another for the model with -p roles.embeddings.model=COLUMN"
    elif not seen.makes_embeddings and fixed is None and relations.count(connection, vectors.identifier):
        yield f"{vectors} has rows and no column of vectors, so nobody knows of which model they are: empty it, or name another table"
    view = sql.Identifier(tables.schema, model_pieces.VIEW)
    if relations.exists(connection, view):
        yield (
            f"{tables.schema}.{model_pieces.VIEW} is there already, and is what the registry is read by: rename it, ALTER TABLE "
            f"{tables.schema}.{model_pieces.VIEW} RENAME TO {model_pieces.VIEW}_before"
        )


def _key_problems(
    connection: Connection, tables: ModelTables, narrow: UniqueKey | None, keyed: bool, asked: Asked
) -> Iterator[str]:
    vectors = tables.embeddings
    if narrow:
        name = narrow.constraint or narrow.index
        if narrow.referenced_by:
            yield (
                f"{', '.join(narrow.referenced_by)} rests on {name}, which allows {vectors} one row a chunk, and has to go: drop what "
                "rests on it first"
            )
        elif not asked.replace_unique:
            yield (
                f"{name} allows {vectors} one row a chunk, and there will be one a chunk and model; ON CONFLICT ({vectors.chunk}) "
                f"of the application would fail without it: have it name ({vectors.chunk}, {vectors.model}), then `{INIT} "
                "-p replace_unique=true`"
            )
    elif not keyed:
        twice = connection.execute(
            sql.SQL("SELECT {chunk}::text FROM {table} GROUP BY {chunk} HAVING count(*) > 1 LIMIT 1").format(
                chunk=sql.Identifier(vectors.chunk), table=vectors.identifier
            )
        ).fetchone()
        if twice and not relations.has_column(connection, vectors.identifier, vectors.model):
            yield f"{vectors} has several rows of chunk {twice[0]}: keep one, for there will be one a chunk and model"


def _next(connection: Connection, table: str, column: str) -> int:
    """The number that the registry will give."""
    row = connection.execute("SELECT to_regclass('vecferry.model_tables') IS NOT NULL").fetchone()
    if row != (True,):
        return 1
    name = connection.execute(
        "SELECT coalesce(s.last_value, 0) + 1 FROM pg_sequences s "
        "WHERE (quote_ident(s.schemaname) || '.' || quote_ident(s.sequencename)) = pg_get_serial_sequence(%s, %s)",
        (f"vecferry.{table}", column),
    ).fetchone()
    return int(name[0]) if name else 1
