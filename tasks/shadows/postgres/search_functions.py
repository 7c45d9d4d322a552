"""The function that searches the vectors of one model, or writes them: derived from the application's own, or, where it has none
to search by, a usual one."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from psycopg import sql

from tasks.runs import search_bodies
from tasks.runs.plan import Target
from tasks.shadows.postgres import handing_over
from tasks.shadows.postgres.called import Origin, origin_of, relation_of, routine
from tasks.shadows.postgres.derive import derive, hands_out_rows, parsed, query_of, rename, respelled
from tasks.shadows.postgres.live.place import joined
from tasks.shadows.postgres.underivable import KINDS, Underivable, Vectors
from tasks.shadows.postgres.usual_function import make_usual, usual
from tasks.stores.postgres import catalogue
from tasks.stores.postgres.catalogue import Function, define, dollars, functions
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.function_names import bare, of_table, shown
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.remaking import remake


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
        parsed(replace(routine(origin), body=body, definition=f"{function.head}\nAS {dollars(body)}"))
    else:
        new = replace(new, compared_as=new.type) if writes else new
        relation = relation_of(connection, function.config, origin.column, target)
        derived = derive(routine(origin), bare(name), _old(target, origin, new), new, relation, writes)
        body, query = derived.body, derived.query
    types = {query: f"{new.extension}.{new.compared_as}"} if query is not None and kinds[query] in KINDS else {}
    return Searching(body, query, types)


def _query_of(connection: Connection, target: Target[LivePlace], origin: Origin) -> int | None:
    """The query among the arguments of a function that nothing can be derived from, perhaps."""
    function = origin.function
    try:
        return query_of(routine(origin), origin.column, relation_of(connection, function.config, origin.column, target))
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
    if target.place.in_table and hands_out_rows(routine(origin), origin.column, relation):
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
    own, body = origin.function, rename(routine(origin), bare(name))
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
    as_it_is = routine(Origin(function, "", None, False))
    return respelled(as_it_is, names, relation_of(connection, function.config, target.place.new_column, target))


def _made(connection: Connection, target: Target[LivePlace], name: str) -> list[Function]:
    """The functions of that name, which are all of our making."""
    there = functions(connection, target.place.schema, name)
    for function in there:
        if not function.made:
            raise Underivable(f"{function.signature} is there already, and not vecferry's")
    return there


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
