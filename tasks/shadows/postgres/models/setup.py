"""Adding a model to tables that serve several: its row in the registry, a column of its dimensions, and the index of that."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.embedders.interface import Space
from tasks.runs import coverage, model_sets, models, registry
from tasks.runs.registry import Place, RegisteredModel
from tasks.shadows.postgres.models import pieces
from tasks.shadows.postgres.models.changes import Change, registry_changed, send, send_one_by_one
from tasks.shadows.postgres.models.indexes import indexes, partial_indexes
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.fixed_column import vector_columns
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables

MOST_DIMENSIONS = 16_000
"""Of pgvector's type vector."""


@dataclass(frozen=True)
class Wanted:
    """A model that is to be served."""

    name: str
    space: Space


def set_up(
    connection: Connection, tables: ModelTables, wanted: Sequence[Wanted], partial: bool | None = None
) -> list[str]:
    """Registers the models, which can be searched from then on, those that were retired too, and makes what is missing for all that
    are registered; returns what was done. ``partial``: these get indexes of their own rows too; None: those that share a column.
    Raises UsageError where one is there with other dimensions, or its column is somebody else's."""
    done = locked(connection, lambda: _register(connection, tables, wanted))
    known = registry.listed(connection, tables)
    done += send_one_by_one(connection, indexes(connection, tables, known))
    done += send_one_by_one(connection, partial_indexes(connection, tables, _alone(known, wanted, partial)))
    return done


def changes(
    connection: Connection, tables: ModelTables, wanted: Sequence[Wanted], partial: bool | None = None
) -> list[Change]:
    """All that would be sent, in order."""
    known = registry.listed(connection, tables)
    names, asked = {model.name for model in known}, {one.name for one in wanted}
    back = [model.name for model in known if model.ended and model.name in asked]
    known = [replace(model, ended=model.ended and model.name not in asked) for model in known]
    first = model_sets.next_number(connection, "model", "model")
    known += [
        model_sets.expected(first + at, one.name, one.space, _place(connection, tables, one))
        for at, one in enumerate(one for one in wanted if one.name not in names)
    ]
    known = model_sets.with_default(known)
    columns = [*missing_columns(connection, tables, known)]
    counters = [pieces.count_embeddings(tables, known)] if columns else []
    new = columns or len(known) > len(names) or back
    searches = [pieces.functions(connection, tables, known)] if new else []
    alone = partial_indexes(connection, tables, _alone(known, wanted, partial))
    return [*columns, *counters, *searches, *indexes(connection, tables, known), *alone]


def _register(connection: Connection, tables: ModelTables, wanted: Sequence[Wanted]) -> list[str]:
    models.hold(connection)
    before = registry.listed(connection, tables)
    back = list[str]()
    for one in wanted:
        model = registry.register(connection, tables, one.name, one.space, _place(connection, tables, one))
        if model.ended:
            model_sets.bring_back(connection, model)
            back.append(f"{model.name} is searched again")
    known = registry.listed(connection, tables)
    done = [f"model {m.id}: {m.name}" for m in known if m.number not in {b.number for b in before}] + back
    columns = [*missing_columns(connection, tables, known)]
    done += send(connection, columns)
    if columns:
        done += send(connection, [pieces.count_embeddings(tables, known)])
    if columns or len(known) > len(before):
        coverage.note_counts(connection, tables)
    if columns or len(known) > len(before) or back:
        registry_changed(connection, tables)
    return done


def _alone(known: Sequence[RegisteredModel], wanted: Sequence[Wanted], partial: bool | None) -> list[RegisteredModel]:
    """The models that get an index of their own rows."""
    if (
        partial is None
    ):  # the first of a column has most of its rows for as long as others grow, and its index to itself before
        places = [(m.place_table, m.column, m.metric) for m in known]
        return [m for at, m in enumerate(known) if places[at] in places[:at]]
    names = {one.name for one in wanted}
    return [model for model in known if partial and model.name in names]


def missing_columns(connection: Connection, tables: ModelTables, known: Sequence[RegisteredModel]) -> Iterator[Change]:
    """The columns that are missing."""
    missing = dict.fromkeys(
        (m.column, m.dimensions)
        for m in known
        if not coverage.lies_with_chunks(tables, m)
        and not relations.has_column(connection, tables.embeddings.identifier, m.column)
    )
    for column, dimensions in missing:
        yield pieces.vector_column(tables.embeddings, column, dimensions)


def _place(connection: Connection, tables: ModelTables, wanted: Wanted) -> Place:
    """Where its vectors go: into the column of another model of its dimensions, or a new one."""
    vectors, dimensions = tables.embeddings, wanted.space.dimensions
    if dimensions > MOST_DIMENSIONS:
        raise UsageError(
            f"{wanted.name} has {counted(dimensions, 'dimension')}, more than the {MOST_DIMENSIONS:,} of pgvector"
        )
    shared = next(
        (
            m
            for m in registry.listed(connection, tables)
            if m.dimensions == dimensions and not coverage.lies_with_chunks(tables, m) and m.vector_type == "vector"
        ),
        None,
    )
    if shared:
        return Place(shared.place_schema, shared.place_table, shared.column)
    name = f"embedding_{dimensions}"
    there = next((c for c in vector_columns(connection, vectors) if c.name == name), None)
    if there and (there.type, there.dimensions) != ("vector", dimensions):
        raise UsageError(
            f"{there} is of {there.type}({there.dimensions}), and {wanted.name} needs vector({dimensions}): rename that column"
        )
    if not there and relations.has_column(connection, vectors.identifier, name):
        raise UsageError(f"{vectors}.{name} holds no vectors, and {wanted.name} needs a column of that name: rename it")
    return Place(vectors.schema, vectors.table, name)
