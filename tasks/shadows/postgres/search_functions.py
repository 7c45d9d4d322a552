"""The function that searches the vectors of one model, or writes them: derived from the application's own, or, where it has none
to search by, a usual one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from tasks.runs import search_bodies
from tasks.runs.plan import Target
from tasks.shadows.postgres import handing_over
from tasks.shadows.postgres.derive import derive, hands_out_rows, parsed, query_of, rename, respelled, searches
from tasks.shadows.postgres.live.place import joined
from tasks.shadows.postgres.mentions import Table
from tasks.shadows.postgres.scopes import Relation
from tasks.shadows.postgres.underivable import KINDS, Routine, Underivable, Vectors
from tasks.shadows.postgres.usual_function import make_usual, usual
from tasks.stores.postgres import catalogue
from tasks.stores.postgres.catalogue import Function, define, dollars, find, functions, is_generated
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.function_names import bare, of_table, shown
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.remaking import remake
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


def origin_of(connection: Connection, target: Target[LivePlace], name: str) -> Origin | None:
    """The application's own function of that name, as it is or, once it was switched, as it was; None where it has none."""
    live, known = target.place.live, search_bodies.of_function(connection, target.place.schema, name)
    function = find(connection, target.place.schema, name, switched=True)
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
            _routine(Origin(function, column, dimensions, False)),
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


def problems(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What keeps the search function from being switched."""
    for function in target.place.functions:
        yield from _problems(connection, target, function)


def _problems(connection: Connection, target: Target[LivePlace], function: str) -> Iterator[str]:
    place, name = target.place, shown(target.place.schema, function)
    others = {s.model.table for s in search_bodies.of_function(connection, place.schema, function)}
    if others - {f"{place.schema}.{place.table}"}:
        yield f"{name} searches {', '.join(sorted(others))}: name the search function of {place.table} with `function`"
        return
    origin = origin_of(connection, target, function)
    if origin and origin.function.unnamed:
        yield (
            f"{name} returns {origin.function.unnamed}, whose columns only its callers name, so that no function can choose between "
            "models for them: let it return them by name, RETURNS TABLE (…)"
        )
    elif origin:
        try:
            searching(connection, target, origin, function)
        except Underivable as e:
            if function == place.write_function:
                yield (
                    f"no function that writes the new vectors can be derived from {name}: {e}. {_other_way_to_write(place)}, or "
                    "name another function with `write_function`"
                )
            elif place.body_of(function):
                yield f"the `function_sql` of {name} is not what PostgreSQL takes for its body: {e}"
            else:
                yield (
                    f"no function for the new vectors can be derived from {name}: {e}. Give its body for them with `function_sql`, "
                    f"or name another function with `function`"
                )


def _other_way_to_write(place: LivePlace) -> str:
    beside = "SET column = value, choose layout=column, leave it with the old vectors by write_function=null"
    return f"Let it do what it does by UPDATE … {'SET or INSERT' if place.in_table else beside}"


def argument_of_query(connection: Connection, target: Target[LivePlace], name: str) -> int | None:
    """The argument that says which vectors are meant, by number; None where none does."""
    for searched in search_bodies.of_function(connection, target.place.schema, name):
        if searched.origin and not searched.own:
            number: int | None = searched.origin["query"]
            return number
    function = find(connection, target.place.schema, name, switched=True)
    vectors = [n for n, p in enumerate(function.inputs) if p.kind in KINDS] if function else []
    return vectors[0] if vectors else None


@dataclass(frozen=True)
class Searching:
    """A function for one model's vectors."""

    body: str
    query: int | None
    """The argument that a distance is taken to, or that is written, by number; None where none is."""
    types: dict[int, str]
    """Types of arguments that differ from the origin's."""


def searching(connection: Connection, target: Target[LivePlace], origin: Origin, name: str) -> Searching:
    """What a function called ``name`` says that searches, or writes, the target's vectors as ``origin`` does its own. Raises
    Underivable."""
    function, new = origin.function, _vectors(connection, target, origin.column)
    called = of_table(target.place.schema, function.schema, function.name)
    kinds, writes = [p.kind for p in function.inputs], called == target.place.write_function
    if given := target.place.body_of(called):
        body, query = given, _query_of(connection, target, origin)
        parsed(replace(_routine(origin), body=body, definition=f"{function.head}\nAS {dollars(body)}"))
    else:
        new = replace(new, compared_as=new.type) if writes else new
        relation = relation_of(connection, function.config, origin.column, target)
        derived = derive(_routine(origin), bare(name), _old(target, origin, new), new, relation, writes)
        body, query = derived.body, derived.query
    types = {query: f"{new.extension}.{new.compared_as}"} if query is not None and kinds[query] in KINDS else {}
    return Searching(body, query, types)


def _query_of(connection: Connection, target: Target[LivePlace], origin: Origin) -> int | None:
    """The query among the arguments of a function that nothing can be derived from, perhaps."""
    function = origin.function
    try:
        return query_of(
            _routine(origin), origin.column, relation_of(connection, function.config, origin.column, target)
        )
    except Underivable:
        return next((n for n, parameter in enumerate(function.inputs) if parameter.kind in KINDS), None)


def told(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What is to be known of the application's own functions before a run."""
    for function in target.place.functions:
        if origin := origin_of(connection, target, function):
            yield from _told(connection, target, origin)


def _told(connection: Connection, target: Target[LivePlace], origin: Origin) -> Iterator[str]:
    name, relation = origin.function.name, relation_of(connection, origin.function.config, origin.column, target)
    with suppress(Underivable):
        if searching(connection, target, origin, name).query is None and target.dimensions != origin.dimensions:
            yield (
                f"no argument of {name} tells which vectors are meant: from the cutover on it searches "
                f"{target.place.new_column} alone, and every instance of the application has to move to the new model with it"
            )
    if target.place.in_table and hands_out_rows(_routine(origin), origin.column, relation):
        yield (
            f"{name} hands out whole rows, which have {target.place.new_column} too once that is there: name the columns, or "
            "take layout=side_table"
        )


def make(connection: Connection, target: Target[LivePlace], function: str, name: str) -> Origin | None:
    """A function called ``name``, in the schema of the live table, that does by the target's new vectors what ``function`` does;
    returns what it was derived from."""
    origin = origin_of(connection, target, function)
    if origin is None:
        make_usual(connection, target, name)
        return None
    before, own, says = _made(connection, target, name), origin.function, searching(connection, target, origin, name)
    made = remake(connection, before, lambda: define(connection, own, name, body=says.body, types=says.types))
    if origin.function.definer:  # the function that calls it has its owner's rights; nobody else needs it
        catalogue.give(connection, made, origin.function.owner, ())
    what = "writes" if function == target.place.write_function else "the nearest rows by"
    catalogue.note(connection, made, f"{what} {target.name}")
    return replace(origin, query=says.query)


def body_statement(connection: Connection, target: Target[LivePlace], function: str, name: str) -> sql.Composed:
    """What ``make`` sends first, for the plan."""
    origin = origin_of(connection, target, function)
    if origin is None:
        return usual(connection, target, name)
    with suppress(Underivable):  # which is a problem of the plan
        says = searching(connection, target, origin, name)
        return catalogue.defined(origin.function, name, says.body, types=says.types)
    return sql.Composed([])


def keep(connection: Connection, origin: Origin, name: str, called: bool) -> Function:
    """The application's own function under another name; ``called`` where people call it by that."""
    own, body = origin.function, rename(_routine(origin), bare(name))
    before = [f for f in functions(connection, own.schema, name) if f.made]
    kept = remake(connection, before, lambda: define(connection, own, name, body=body))
    if own.definer and not called:
        catalogue.give(connection, kept, own.owner, ())
    return kept


def respell(
    connection: Connection, target: Target[LivePlace], function: Function, names: Mapping[str, str]
) -> str | None:
    """The body of a function of ours once columns of the table are called otherwise, old name → new name; None where it follows
    them by itself. Raises Underivable."""
    if function.parsed:
        return None
    routine = _routine(Origin(function, "", None, False))
    return respelled(routine, names, relation_of(connection, function.config, target.place.new_column, target))


def _made(connection: Connection, target: Target[LivePlace], name: str) -> list[Function]:
    """The functions of that name, which are all of our making."""
    there = functions(connection, target.place.schema, name)
    for function in there:
        if not function.made:
            raise Underivable(f"{function.signature} is there already, and not vecferry's")
    return there


def _routine(origin: Origin) -> Routine:
    f = origin.function
    names, kinds = tuple(p.name for p in f.inputs), tuple(p.kind for p in f.inputs)
    return Routine(f.name, f.language, f.body, f.definition, origin.returns_row, names, kinds)


def _vectors(connection: Connection, target: Target[LivePlace], old: str) -> Vectors:
    """The new vectors, in the place of those of the column ``old``."""
    layout, place = target.place.layout, target.place
    extension = pgvector_schema(connection) or "public"
    takes = handing_over.takes(place)
    return Vectors(
        place.new_column,
        layout.type,
        layout.dimensions,
        layout.index_type or layout.type,
        extension,
        joined(target) if place.in_shadow else None,
        handing_over.handed(place, extension) if takes else None,
        handing_over.keeping(connection, place, old) if takes else (),
    )


def _old(target: Target[LivePlace], origin: Origin, new: Vectors) -> Vectors:
    layout = target.place.live.layout
    return Vectors(origin.column, layout.type, origin.dimensions, layout.type, new.extension)


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
