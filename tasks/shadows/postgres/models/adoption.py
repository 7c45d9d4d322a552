"""Taking over a table of models that is there already: its rows become models of the registry, under the ids that the vectors
name, and its name goes to the view of the registry."""

from collections.abc import Iterator

from sql import statement
from tasks.embedders.bare_names import USUAL, whole_name
from tasks.embedders.registry import PROVIDERS
from tasks.runs import model_sets, registry
from tasks.runs.registry import UNKNOWN, Place, RegisteredModel
from tasks.shadows.postgres.models.changes import Change, change
from tasks.shadows.postgres.models.draft import Draft
from tasks.stores.interface import Metric
from tasks.stores.postgres import models_table, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables
from tasks.stores.postgres.models_table import NAME, KnownModel


def register(connection: Connection, tables: ModelTables, drafted: Draft) -> None:
    """Registers its rows; active is the one that was, or that has the most vectors."""
    assert drafted.known
    named = relations.has_column(connection, tables.embeddings.identifier, tables.embeddings.model)
    searched = searched_id(connection, drafted)
    for known in drafted.known.models:
        place, metric = _place(drafted, known)
        external_id = known.id if named else None
        registry.register(connection, tables, name_of(known), known.dimensions, place, metric, external_id)
    for model in registry.listed(connection, tables):
        if named and model.id == searched:
            registry.set_active(connection, tables, model)


def expected(drafted: Draft, number: int) -> list[RegisteredModel]:
    """The models as the registry will have them, but for which is active."""
    return [
        model_sets.expected(number + at, name_of(known), known.dimensions, *_place(drafted, known), known.id)
        for at, known in enumerate(drafted.known.models if drafted.known else ())
    ]


def searched_id(connection: Connection, drafted: Draft) -> str | None:
    """What the vectors call the model that is searched now; None where nothing tells."""
    vectors = drafted.tables.embeddings
    if drafted.known is None or not relations.has_column(connection, vectors.identifier, vectors.model):
        return None
    return models_table.most_used(connection, drafted.tables, drafted.known)


def changes(drafted: Draft) -> Iterator[Change]:
    """The table steps aside, and so does what ties the vectors to it: new models have no row there."""
    assert drafted.known
    vectors, known = drafted.tables.embeddings, drafted.known
    for constraint in known.foreign_keys:
        dropped = statement("contract_constraint", schema=vectors.schema, table=vectors.table, constraint=constraint)
        yield change(f"no foreign key {constraint} of {vectors}", dropped)
    renamed = statement("cutover_models_table", schema=known.schema, table=NAME, renamed=f"{NAME}_before")
    yield change(f"table {known} is called {NAME}_before", renamed)


def foreign_keys(connection: Connection, drafted: Draft) -> dict[str, str]:
    """Those that go, and what makes them again."""
    if drafted.known is None:
        return {}
    rows = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = ANY (%s)",
        (drafted.tables.embeddings.identifier.as_string(), list(drafted.known.foreign_keys)),
    ).fetchall()
    return dict(rows)


def name_of(known: KnownModel) -> str:
    """What the model is called here: with its provider, where that is one that can be opened."""
    first = known.name.partition("/")[0]
    if first in PROVIDERS:
        return known.name
    if known.provider in PROVIDERS:
        return f"{known.provider}/{known.name}"
    if known.name in USUAL:
        return whole_name(known.name)
    return f"{(known.provider or UNKNOWN).replace('/', '-')}/{known.name}"


def _place(drafted: Draft, known: KnownModel) -> tuple[Place, Metric]:
    """The column that its vectors lie in, by its dimensions."""
    vectors, usual = drafted.tables.embeddings, f"embedding_{known.dimensions}"
    fitting = [column for column in drafted.columns if column.dimensions == known.dimensions]
    for column in sorted(fitting, key=lambda column: column.name != usual):
        return Place(column.schema, column.table, column.name, column.type), column.metric
    return Place(vectors.schema, vectors.table, usual), "cosine"
