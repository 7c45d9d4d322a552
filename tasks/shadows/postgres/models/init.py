"""Preparing tables to serve several models: what is missing is made, and the column of vectors that they came with is taken over
as that of its model, without a row being rewritten."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tasks.base.errors import UsageError
from tasks.runs import coverage, ledger_versions, model_sets, models, registry, served
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres import extension
from tasks.shadows.postgres.models import adoption, pieces
from tasks.shadows.postgres.models.changes import Change, registry_changed, send, send_one_by_one
from tasks.shadows.postgres.models.draft import Asked, Draft, Source, draft
from tasks.shadows.postgres.models.indexes import indexes
from tasks.shadows.postgres.models.obstacles import obstacles
from tasks.shadows.postgres.models.readers import readers
from tasks.shadows.postgres.models.setup import missing_columns
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables

__all__ = ["Asked", "Source", "changes", "draft", "initialise", "notes", "problems"]


def problems(connection: Connection, drafted: Draft, asked: Asked) -> list[str]:
    """What stands in the way."""
    return list(obstacles(connection, drafted, asked))


def notes(connection: Connection, drafted: Draft) -> list[str]:
    """What the application should know before a second model has vectors."""
    vectors = drafted.tables.embeddings
    if drafted.makes_embeddings:
        return []
    return [
        f"{reader} reads {vectors}, and sees a row a chunk and model once a second model has vectors: have it ask for one "
        f"{vectors.model}, or for rows whose column of vectors is not null"
        for reader in readers(connection, vectors.schema, vectors.table)
    ] + ["make a backup first, with pg_dump, as before any change of a table"]


def changes(connection: Connection, drafted: Draft, asked: Asked) -> list[Change]:
    """All that would be sent, in order: what a plan shows. The numbers are those that the registry would give."""
    if drafted.begun:
        return list(_later(connection, drafted, registry.listed(connection, drafted.tables)))
    tables = replace(drafted.tables, set_id=model_sets.next_number(connection, "model_tables", "set_id"))
    expected = _expected(drafted, asked, model_sets.next_number(connection, "model", "model"))
    known = model_sets.with_default(expected, adoption.searched_id(connection, drafted))
    searches = pieces.functions(connection, tables, known)
    later = _later(connection, replace(drafted, tables=tables), known)
    return [*_first(connection, drafted, tables, known), searches, *later]


def initialise(connection: Connection, asked: Asked) -> tuple[ModelTables, list[str]]:
    """Prepares the tables; returns them, and what there is then. It can be called again, and goes on where it was cut off. Raises
    UsageError with all that stands in the way, before anything is changed."""
    drafted = draft(connection, asked)
    if standing := problems(connection, drafted, asked):
        raise UsageError("; ".join(standing))
    ledger_versions.ensure(connection)
    extension.prepare(connection)
    done: list[str] = []
    if not drafted.begun:
        tables, done = locked(connection, lambda: _begin(connection, drafted, asked))
        drafted = replace(drafted, tables=tables, begun=True)
    later = _later(connection, drafted, registry.listed(connection, drafted.tables))
    done += send_one_by_one(connection, later)
    if not coverage.is_counted(connection, drafted.tables):
        coverage.count_once(connection, drafted.tables)
    return drafted.tables, done


def _begin(connection: Connection, drafted: Draft, asked: Asked) -> tuple[ModelTables, list[str]]:
    """All that can be one transaction, the registry's rows among it; nothing where somebody else has done it meanwhile."""
    models.hold(connection)
    if (now := draft(connection, asked)).begun:
        return now.tables, []
    noted = _before(connection, drafted, asked)
    tables = model_sets.add_tables(connection, drafted.tables, coverage.counts_of_chunk(drafted.tables, []), noted)
    if drafted.fixed and asked.source:
        fixed = drafted.fixed
        space = asked.source.space or fixed.dimensions or 0
        place = registry.Place(fixed.schema, fixed.table, fixed.name, fixed.type)
        registry.register(connection, tables, asked.source.name, space, place, fixed.metric)
    if drafted.known:
        adoption.register(connection, tables, drafted)
    known = registry.listed(connection, tables)
    done = [f"model {m.id}: {m.name}, in {m.place_schema}.{m.place_table}.{m.column}" for m in known]
    done += send(connection, _first(connection, drafted, tables, known))
    coverage.note_counts(connection, tables)
    registry_changed(connection, tables)
    return tables, done


def _before(connection: Connection, drafted: Draft, asked: Asked) -> dict[str, Any]:
    """What is needed to put the tables back."""
    vectors = drafted.tables.embeddings
    fixed, narrow = drafted.fixed, drafted.narrow
    in_vectors = fixed is not None and (fixed.schema, fixed.table) == (vectors.schema, vectors.table)
    return {
        "documents_made": drafted.makes_documents,
        "embeddings_made": drafted.makes_embeddings,
        "model_made": not drafted.makes_embeddings and _lacks_model(connection, drafted),
        "fixed": fixed.name if fixed else None,
        "source": asked.source.name if fixed and asked.source else None,
        "indexes": [index.name for index in served.indexes(connection, drafted.tables)],
        "columns": [column.name for column in drafted.columns],
        "adopted": [adoption.name_of(model) for model in drafted.known.models] if drafted.known else None,
        "never_null": bool(in_vectors and fixed and fixed.never_null),
        "narrow": narrow
        and {
            "name": narrow.constraint or narrow.index,
            "kind": narrow.kind,
            "constraint": narrow.constraint is not None,
        },
        "keyed": drafted.keyed,
        "foreign_keys": adoption.foreign_keys(connection, drafted),
    }


def _first(
    connection: Connection, drafted: Draft, tables: ModelTables, known: list[RegisteredModel]
) -> Iterator[Change]:
    if drafted.makes_documents:
        yield pieces.documents(tables)
    if drafted.makes_embeddings:
        yield from pieces.embeddings(connection, tables)
    elif _lacks_model(connection, drafted):
        yield pieces.model_column(tables, known[0].number if drafted.fixed and known else None)
    if drafted.fixed and drafted.fixed.never_null and known and not coverage.lies_with_chunks(tables, known[0]):
        yield pieces.may_be_null(tables.embeddings, drafted.fixed.name)
    if drafted.known:
        yield from adoption.changes(drafted)
        yield from missing_columns(connection, tables, known)
    yield pieces.count_chunks(tables, known)
    yield pieces.count_embeddings(tables, known)
    yield pieces.view(connection, tables)


def _later(connection: Connection, drafted: Draft, known: list[RegisteredModel]) -> Iterator[Change]:
    """What takes long, or must be alone."""
    if not drafted.keyed:
        yield from pieces.unique_key(drafted.tables, drafted.narrow)
    elif drafted.narrow:
        yield pieces.no_narrow_key(drafted.tables, drafted.narrow)
    yield from indexes(connection, drafted.tables, known)


def _lacks_model(connection: Connection, drafted: Draft) -> bool:
    vectors = drafted.tables.embeddings
    return not relations.has_column(connection, vectors.identifier, vectors.model)


def _expected(drafted: Draft, asked: Asked, number: int) -> list[RegisteredModel]:
    """As the registry will have them."""
    fixed, expected = drafted.fixed, list[RegisteredModel]()
    if fixed and asked.source:
        place = registry.Place(fixed.schema, fixed.table, fixed.name, fixed.type)
        space = asked.source.space or fixed.dimensions or 0
        expected.append(model_sets.expected(number, asked.source.name, space, place, fixed.metric))
    return [*expected, *adoption.expected(drafted, number + len(expected))]
