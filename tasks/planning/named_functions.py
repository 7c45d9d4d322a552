"""Which functions of the application's a plan switches: those that the user names, as SQL does, or the usual one."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.base.words import listed
from tasks.runs.plan import Target
from tasks.shadows.postgres.called import origin_of
from tasks.shadows.postgres.column_readers import readers
from tasks.stores.postgres.catalogue import functions
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import of_table, shown, told
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.syntax import tokens


@dataclass(frozen=True)
class Chosen:
    """Functions as plans call them, and what is to be said of the choice."""

    functions: tuple[str, ...]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose(connection: Connection, target: Target[LivePlace], named: str | tuple[str, ...] | None) -> Chosen:
    """The functions that are ``named``, or else match_TABLE. Raises UsageError where there are several of one name."""
    if named is None:
        return _usual(connection, target)
    place = target.place
    names = (named,) if isinstance(named, str) else named
    chosen = tuple(dict.fromkeys(of_plan(connection, place.schema, name) for name in names))
    missing = [function for function in chosen if origin_of(connection, target, function) is None]
    searching = _searching(connection, target) if missing else []
    column = f"{place.schema}.{place.table}.{place.live.vectors}"
    by = (
        f"{column} is searched by {', '.join(searching)}"
        if searching
        else f"nor one that takes a distance from {column}"
    )
    return Chosen(chosen, tuple(f"there is no function {shown(place.schema, f)}: {by}" for f in missing))


def _usual(connection: Connection, target: Target[LivePlace]) -> Chosen:
    """match_TABLE: where that is not beside the table, it may be elsewhere if nothing else takes a distance from its old column."""
    place, function = target.place, f"match_{target.place.table}"
    if origin_of(connection, target, function):
        return Chosen((function,))
    column, missing = (
        f"{place.schema}.{place.table}.{place.live.vectors}",
        f"there is no function {shown(place.schema, function)}",
    )
    searching = _searching(connection, target)
    elsewhere = of_plan(connection, place.schema, function)
    if searching == [shown(place.schema, elsewhere)]:
        return Chosen((elsewhere,))
    if searching:
        way = f"name {'it' if len(searching) == 1 else 'what is to be switched'} with `function`"
        return Chosen((function,), (f"{missing}, but {column} is searched by {', '.join(searching)}: {way}",))
    return Chosen(
        (function,),
        (),
        (
            f"{missing}, nor one that takes a distance from {column}: an application that sends its searches itself goes on "
            f"searching {place.live.vectors} until it is changed",
        ),
    )


def _searching(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """The functions that take a distance from the old column, as SQL names them."""
    return list(dict.fromkeys(r.called for r in readers(connection, target, target.place.live.vectors) if r.compares))


def bodies(
    connection: Connection, schema: str, functions: tuple[str, ...], given: str | dict[str, str] | None
) -> tuple[str | dict[str, str] | None, list[str]]:
    """The bodies that a user gives, by the functions as plans call them; and what is wrong with their names."""
    if isinstance(given, str) and len(functions) > 1:
        return given, [
            f"`function_sql` is one body for {listed([*map(told, functions)])}: give each its own by name, {{match_docs: SELECT …}}"
        ]
    if not isinstance(given, dict):
        return given, []
    named = {of_plan(connection, schema, name): body for name, body in given.items()}
    unused = [
        f"`function_sql` has a body for {shown(schema, name)}, which is not switched"
        for name in named
        if name not in functions
    ]
    return named, unused


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
