"""What people call by a name: the function that is there, the models that it searches, and the application's own that it was made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from tasks.runs import search_bodies
from tasks.runs.plan import Target
from tasks.runs.search_bodies import Searched
from tasks.shadows.postgres.derive import searches
from tasks.shadows.postgres.mentions import Table
from tasks.shadows.postgres.scopes import Relation
from tasks.shadows.postgres.underivable import KINDS, Routine
from tasks.stores.postgres.catalogue import Function, find, is_generated
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import bare
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.syntax import tokens


@dataclass(frozen=True)
class Origin:
    """The application's own function, and which vectors of the live table it searches."""

    function: Function
    column: str
    dimensions: int | None
    returns_row: bool
    query: int | None = None
    """The argument that is the query, by number; None where there is none, or it is not known yet."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "function": self.function.to_json()}

    def is_alike(self, other: "Origin") -> bool:
        """Whether the same is derived from both."""
        return _compared(self) == _compared(other)


@dataclass(frozen=True)
class Called:
    """What people call by a name, at one moment."""

    name: str
    function: Function | None
    """None where it is not there."""
    known: Sequence[Searched]
    """The models that it searches, or will, in the order in which they came."""
    origin: Origin | None
    """None where the application has no function of its own by that name."""

    @property
    def own(self) -> Searched | None:
        """What the application's own function searches, under its name or put aside."""
        return next((s for s in self.known if s.own), None)

    @property
    def query(self) -> int | None:
        """The argument that says which vectors are meant, by number; None where none does."""
        for searched in self.known:
            if searched.origin and not searched.own:
                number: int | None = searched.origin["query"]
                return number
        vectors = [n for n, p in enumerate(self.function.inputs) if p.kind in KINDS] if self.function else []
        return vectors[0] if vectors else None


def look_up(connection: Connection, target: Target[LivePlace], name: str) -> Called:
    """What is called by the name now."""
    known = search_bodies.of_function(connection, target.place.schema, name)
    function = find(connection, target.place.schema, name, switched=True)
    return Called(name, function, known, _origin(connection, target, name, function, known))


def origin_of(connection: Connection, target: Target[LivePlace], name: str) -> Origin | None:
    """The application's own function of that name, as it is or, once it was switched, as it was; None where it has none."""
    return look_up(connection, target, name).origin


def _origin(
    connection: Connection, target: Target[LivePlace], name: str, function: Function | None, known: Sequence[Searched]
) -> Origin | None:
    live = target.place.live
    if function is None or is_generated(function):
        for searched in reversed(known):
            if searched.origin:
                return from_json(searched.origin)
        own = next((s for s in known if s.own), None)
        function = find(connection, target.place.schema, own.body) if own else None
        if own is None or function is None:
            return None
        function, column, dimensions = replace(function, name=bare(name)), own.model.column_name, own.model.dimensions
    else:
        own = next((s for s in known if s.own and s.body == name), None)
        column, dimensions = live.vectors, live.layout.dimensions
        if own and not searches(
            routine(Origin(function, column, dimensions, False)),
            column,
            relation_of(connection, function.config, column, target),
        ):
            column, dimensions = own.model.column_name, own.model.dimensions
    table = connection.execute("SELECT to_regclass(%s)::oid::int8", (live.identifier.as_string(),)).fetchone()
    return Origin(function, column, dimensions, table == (function.row_of,))


def _compared(origin: Origin) -> Origin:
    return replace(origin, query=None, function=replace(origin.function, oid=0, made=False))


def from_json(data: dict[str, Any]) -> Origin:
    return Origin(**{**data, "function": Function.from_json(data["function"])})


def routine(origin: Origin) -> Routine:
    f = origin.function
    names, kinds = tuple(p.name for p in f.inputs), tuple(p.kind for p in f.inputs)
    return Routine(f.name, f.language, f.body, f.definition, origin.returns_row, names, kinds)


def relation_of(connection: Connection, config: Sequence[str], column: str, target: Target[LivePlace]) -> Relation:
    """Tables as a function sees them that has these settings: by its own search_path, where it sets one."""
    path = next((c.partition("=")[2] for c in config if c.startswith("search_path=")), None)
    schemas = [None] if path is None else ["pg_catalog", *(t.name for t in tokens(path) if t.name)]
    live = target.place.live.identifier.as_string()

    def look(schema: str | None, name: str) -> Table | None:
        places = [sql.Identifier(*filter(None, (s, name))).as_string() for s in ([schema] if schema else schemas)]
        row = connection.execute(
            "SELECT c.oid = to_regclass(%s), ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 "
            "AND NOT attisdropped ORDER BY attnum) FROM unnest(%s::text[]) WITH ORDINALITY AS p(place, n) "
            "JOIN pg_class c ON c.oid = to_regclass(place) ORDER BY n LIMIT 1",
            (live, places),
        ).fetchone()
        if row is None:
            return None
        # A contract has dropped the column since, perhaps.
        return Table(tuple(dict.fromkeys([*row[1], *([column] if row[0] else [])])), bool(row[0]))

    return look
