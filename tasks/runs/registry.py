"""The registry of models of tables that serve several at once: which there are, where their vectors lie, and which of them new
searches and new documents use.

A model is ``building`` while a run makes its vectors for the first time, ``built`` once it can be searched, ``active`` when it
is the default, and ``retired`` when its vectors are gone. One that has ``ended`` is no longer searched; its vectors are there.
"""

from dataclasses import dataclass, replace

from psycopg import sql
from psycopg.rows import class_row

from tasks.base import words
from tasks.base.errors import NotFound, UsageError
from tasks.embedders import naming
from tasks.embedders.bare_names import whole_name
from tasks.embedders.interface import Space
from tasks.embedders.registry import PROVIDERS
from tasks.runs import models
from tasks.runs.model_ids import next_id
from tasks.stores.interface import Metric
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.model_tables import ModelTables
from tasks.stores.postgres.pgvector import Layout, VectorType

SETUP = "vecferry models setup"
UNKNOWN = "unknown"
"""Provider of a model that nobody can name: its vectors are searched by vectors only."""


@dataclass(frozen=True)
class RegisteredModel:
    """A model of a set of tables."""

    number: int
    id: str
    """What the table of the vectors calls it, as text of the type of its model column."""
    name: str
    """As it is opened: provider/model[@revision][?option=value]."""
    provider: str
    dimensions: int
    metric: Metric
    normalized: bool | None
    """None where nobody knows."""
    space: str
    """Its fingerprint; empty where nobody knows it."""
    similarity_threshold: float | None
    active: bool
    """Whether it is the default of new searches and new documents."""
    ended: bool
    """Whether it is no longer searched."""
    building: bool
    """Whether a run is making its vectors for the first time."""
    place_schema: str
    place_table: str
    """Where its vectors lie: the table of vectors, or that of the chunks, where the fixed column stood there."""
    column: str
    vector_type: VectorType

    @property
    def bare(self) -> str:
        """Its name without the provider."""
        return self.name.removeprefix(f"{self.provider}/")

    @property
    def shown(self) -> str:
        """Its name for people."""
        return naming.shown(self.name)

    @property
    def searched(self) -> bool:
        return not self.ended and not self.building

    @property
    def layout(self) -> Layout:
        return Layout(self.vector_type, self.dimensions, self.metric)

    @property
    def place(self) -> sql.Identifier:
        return sql.Identifier(self.place_schema, self.place_table)

    @property
    def operand(self) -> str:
        """The SQL expression that its index is on, over a row of its place."""
        return self.layout.operand(quoted(self.column))


_COLUMNS = """model AS number, coalesce(external_id, model::text) AS id, name, provider, dimensions, metric, normalized, space,
    similarity_threshold, state = 'active' AS active, ended_at IS NOT NULL AS ended, state = 'building' AS building,
    place_schema, place_name AS place_table, column_name AS "column", vector_type"""


def listed(connection: Connection, tables: ModelTables) -> list[RegisteredModel]:
    """Those whose vectors are there or are being made, in the order in which they came."""
    with connection.cursor(row_factory=class_row(RegisteredModel)) as cursor:
        query = sql.SQL("SELECT {} FROM vecferry.model WHERE set_id = {} AND state <> 'retired' ORDER BY model").format(
            sql.SQL(_COLUMNS), sql.Literal(tables.set_id)
        )
        return cursor.execute(query).fetchall()


def named(connection: Connection, tables: ModelTables, name: str) -> RegisteredModel:
    """The model of that name: whole, or without its provider or its options where that is unique. Raises UsageError with those
    that there are."""
    return among(listed(connection, tables), name)


def among(known: list[RegisteredModel], name: str) -> RegisteredModel:
    """As ``named``, of models that have been listed."""
    forms = (
        lambda m: m.name,
        lambda m: m.bare,
        lambda m: m.name.partition("?")[0],
        lambda m: m.bare.partition("?")[0],
        lambda m: m.bare.partition("?")[0].rpartition("/")[2],
    )
    for form in forms:
        meant = [model for model in known if form(model) == name]
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise UsageError(f"{name!r} may be {' or '.join(m.name for m in meant)}: write the whole name")
    there = f"there are {words.listed([m.name for m in known])}" if known else "there is none yet"
    raise NotFound(f"no model {name!r} is registered; {there}. {_adds(name)}")


def _adds(name: str) -> str:
    """The command that registers the model, where it is the name of one."""
    try:
        known = naming.parse_model(whole_name(name)).provider in PROVIDERS
    except UsageError:
        known = False
    return f"`{SETUP} {words.typed(name)}` adds it" if known else f"`{SETUP} PROVIDER/MODEL` adds one"


def default(connection: Connection, tables: ModelTables) -> RegisteredModel:
    """The model that new searches and new documents use. Raises UsageError where there is none."""
    for model in listed(connection, tables):
        if model.active:
            return model
    raise UsageError(f"no model is active for {tables.chunks}: `{SETUP} PROVIDER/MODEL` adds one")


def may_be_searched(model: RegisteredModel) -> None:
    """Raises UsageError where its vectors are not to be searched."""
    if model.ended:
        raise UsageError(
            f"model {model.name} is retired from search: `vecferry models setup {words.typed(model.name)}` brings it back while its "
            "vectors are there"
        )
    if model.building:
        raise UsageError(
            f"model {model.name} is being made by a run and cannot be searched yet: `vecferry status` shows it"
        )


def check_dimensions(model: RegisteredModel, dimensions: int) -> None:
    """Raises UsageError where a vector is not of its model's dimensions."""
    if dimensions != model.dimensions:
        raise UsageError(
            f"the vector has {words.counted(dimensions, 'dimension')}, and model {model.name} has {model.dimensions}: check "
            "the model that made it"
        )


@dataclass(frozen=True)
class Place:
    """Where the vectors of a model lie."""

    schema: str
    table: str
    column: str
    vector_type: VectorType = "vector"


def register(
    connection: Connection,
    tables: ModelTables,
    name: str,
    space: Space | int,
    place: Place,
    metric: Metric = "cosine",
    external_id: str | None = None,
) -> RegisteredModel:
    """Adds a model, which is searched from now on, and is active where none is. ``space`` is its number of dimensions where that
    is all that is known. Raises UsageError where it is there with other dimensions; where it is there alike, that one is
    returned."""
    dimensions = space if isinstance(space, int) else space.dimensions
    known = listed(connection, tables)
    for model in known:
        if model.name == name:
            if model.dimensions != dimensions:
                raise UsageError(
                    f"model {name} exists with {words.counted(model.dimensions, 'dimension')}, not {dimensions}: it was registered for "
                    f"{model.place_schema}.{model.place_table}.{model.column}"
                )
            return _learned(connection, model, space)
    values = {
        "set_id": tables.set_id,
        "table_schema": tables.chunks.schema,
        "table_name": tables.chunks.table,
        "content": f"{{{tables.chunks.text}}}",
        "place_schema": place.schema,
        "place_name": place.table,
        "column_name": place.column,
        "vector_type": place.vector_type,
        "dimensions": dimensions,
        "metric": metric,
        "space": "" if isinstance(space, int) else space.fingerprint,
        "normalized": None if isinstance(space, int) else space.normalized,
        "name": name,
        "provider": name.partition("/")[0],
        "external_id": external_id or next_id(tables.embeddings.model_type, name, [(m.number, m.id) for m in known]),
        "state": "built" if any(model.active for model in known) else "active",
    }
    query = sql.SQL("INSERT INTO vecferry.model ({}) VALUES ({}) RETURNING {}").format(
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() * len(values)),
        sql.SQL(_COLUMNS),
    )
    with connection.cursor(row_factory=class_row(RegisteredModel)) as cursor:
        row = cursor.execute(query, list(values.values())).fetchone()
    assert row
    return row


def set_active(connection: Connection, tables: ModelTables, model: RegisteredModel) -> RegisteredModel | None:
    """Makes it the default of new searches and new documents, in the caller's transaction; returns the one before it. Raises NotFound
    where its vectors were dropped meanwhile."""
    models.hold(connection)
    known = listed(connection, tables)
    model, before = among(known, model.name), next((m for m in known if m.active), None)
    if before and before.number == model.number:
        return before
    connection.execute(
        "UPDATE vecferry.model SET state = 'built', switched_at = now() WHERE set_id = %s AND state = 'active'",
        (tables.set_id,),
    )
    connection.execute(
        "UPDATE vecferry.model SET state = 'active', ended_at = NULL, switched_at = now(), took_over_from = %s WHERE model = %s",
        (before.number if before else None, model.number),
    )
    return before


def end(connection: Connection, tables: ModelTables, model: RegisteredModel) -> None:
    """Has it searched no more; its vectors stay. Raises UsageError for the active one, and NotFound where they were dropped."""
    models.hold(connection)
    if named(connection, tables, model.name).active:
        raise UsageError(
            f"model {model.name} is active: make another one the default first, `vecferry models activate NAME`"
        )
    connection.execute(
        "UPDATE vecferry.model SET ended_at = now() WHERE model = %s AND ended_at IS NULL", (model.number,)
    )


def set_threshold(connection: Connection, model: RegisteredModel, threshold: float | None) -> None:
    """The similarity below which a search by this model gives no row."""
    connection.execute(
        "UPDATE vecferry.model SET similarity_threshold = %s WHERE model = %s", (threshold, model.number)
    )


def _learned(connection: Connection, model: RegisteredModel, space: Space | int) -> RegisteredModel:
    """The same, with its space where that was not known. Raises UsageError where another one was."""
    if isinstance(space, int) or model.space == space.fingerprint:
        return model
    if model.space:
        raise UsageError(
            f"model {model.name} is registered with the space {model.space}, and opens as {space.fingerprint} now: vectors of the two "
            "are not comparable; register it under a name that tells them apart, such as one with its revision"
        )
    connection.execute(
        "UPDATE vecferry.model SET space = %s, normalized = %s WHERE model = %s",
        (space.fingerprint, space.normalized, model.number),
    )
    return replace(model, space=space.fingerprint, normalized=space.normalized)
