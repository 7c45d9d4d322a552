"""Which functions of the application's a plan switches: those that the user names, as SQL does, or the usual one."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.runs.plan import Target
from tasks.shadows.postgres.column_readers import readers
from tasks.shadows.postgres.search_functions import origin_of
from tasks.stores.postgres.catalogue import functions
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import of_table, shown
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.syntax import tokens


@dataclass(frozen=True)
class Chosen:
    """A function as plans call it, and what is to be said of the choice."""

    function: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose(connection: Connection, target: Target[LivePlace], named: str | None) -> Chosen:
    """The function that is ``named``, or else match_TABLE: where that is not beside the table, it may be elsewhere if it takes a
    distance from the table's old column. Raises UsageError where there are several of one name."""
    place = target.place
    function = f"match_{place.table}" if named is None else of_plan(connection, place.schema, named)
    if origin_of(connection, target, function):
        return Chosen(function)
    table, missing = f"{place.schema}.{place.table}", f"there is no function {shown(place.schema, function)}"
    searching = [r for r in readers(connection, target, place.live.vectors) if r.compares]
    names = ", ".join(dict.fromkeys(r.called for r in searching))
    if named is not None:
        by = (
            f": {table} is searched by {names}"
            if searching
            else f", and none that takes a distance from {table}.{place.live.vectors}"
        )
        return Chosen(function, (f"{missing}{by}",))
    if len(searching) == 1 and searching[0].name == function:
        return Chosen(of_table(place.schema, searching[0].schema, function))
    if searching:
        way = f"name {'it' if len(searching) == 1 else 'one of them'} with `function`"
        return Chosen(function, (f"{missing}, but {table} is searched by {names}: {way}",))
    return Chosen(
        function,
        (),
        (
            f"{missing}, and none that takes a distance from {table}.{place.live.vectors}: an application that sends its searches "
            f"itself goes on searching {place.live.vectors} until it is changed",
        ),
    )


def of_plan(connection: Connection, schema: str, name: str) -> str:
    """What a plan calls the function that a user names for a table in ``schema``: ``schema.name``, or a name that is looked for
    beside the table and then on the search path. Where there is none, what it would be called."""
    places = list(_places(connection, schema, name))
    there = (place for place in places if functions(connection, *place))
    return of_table(schema, *next(there, places[-1]))


def _places(connection: Connection, schema: str, name: str) -> Iterator[tuple[str, str]]:
    """Where it may lie, likely places first: capitals may have no quotes. The last is where it is looked for in vain."""
    words = tokens(name)
    row = connection.execute("SELECT current_schemas(false)::text[]").fetchone()
    path = [schema, *(row[0] if row else [])]
    for parts in ([w.text.strip('"') for w in words], [w.name for w in words]):
        if len(parts) == 3:
            yield parts[0], parts[2]
        elif len(parts) == 1:
            yield from ((where, parts[0]) for where in path)
    if len(words) != 3:
        yield schema, name
