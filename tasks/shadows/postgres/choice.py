"""The body of a function that people call: PL/pgSQL that calls the function of the model with the query's dimensions."""

from collections.abc import Sequence

from psycopg import sql

from tasks.base.words import plural
from tasks.runs.plan import Target
from tasks.runs.search_bodies import Searched
from tasks.shadows.postgres.search_functions import argument_of_query
from tasks.shadows.postgres.underivable import KINDS
from tasks.stores.postgres.catalogue import MADE, Function, define, find
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.function_names import split
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace


def choose(
    connection: Connection, target: Target[LivePlace], name: str, function: Function, known: Sequence[Searched]
) -> None:
    """Gives the function a body that calls the function of the model with the query's dimensions; the first of several that
    have as many, and of all where the query has none: it is NULL, or there is no vector among the arguments."""
    query = argument_of_query(connection, target, name)
    bodies: dict[int | None, list[str]] = {}
    for searched in known:
        called = find(connection, function.schema, searched.body, switched=True)
        bodies.setdefault(searched.model.dimensions, _call(function, called, searched.body))
    first = next(iter(bodies.values()))
    lines = [f"-- {MADE}, from vecferry.model and vecferry.search_function.", "BEGIN", *_gate(target)]
    if query is None:
        lines += [f"    {line}" for line in first]
    else:
        any_dimensions = bodies.pop(None, None)
        extension = pgvector_schema(connection)
        cast = "" if function.inputs[query].kind in KINDS else f"::{extension}.vector"
        dims = f"{extension}.vector_dims(${query + 1}{cast})"
        for dimensions in sorted(filter(None, bodies)):
            lines += [
                f"    IF {dims} = {dimensions} THEN",
                *(f"        {line}" for line in bodies[dimensions]),
                "    END IF;",
            ]
        if not function.strict:
            lines += [f"    IF ${query + 1} IS NULL THEN", *(f"        {line}" for line in first), "    END IF;"]
        refusal = _refusal(function.name, sorted(filter(None, bodies)), dims)
        lines += [f"    {line}" for line in any_dimensions or [refusal]]
    define(connection, function, body="\n".join(["", *lines, "END", ""]), language="plpgsql")


def _gate(target: Target[LivePlace]) -> list[str]:
    """A statement that waits for the end of a renaming that goes on. What is called after it is looked up then, and names the columns
    as they are called by then; a body that was looked up before, and waited, would name them as they were."""
    table = target.place.live.identifier.as_string()
    return [f"    PERFORM FROM {table} LIMIT 0;"] if target.place.renaming else []


def _call(function: Function, called: Function | None, name: str) -> list[str]:
    """Statements of PL/pgSQL that return what another function returns for the same arguments."""
    given = []
    for number, parameter in enumerate(function.inputs):
        theirs = called.inputs[number] if called else parameter
        cast = f"::{theirs.type}" if theirs.kind != parameter.kind and parameter.kind in KINDS else ""
        given.append(f"{'VARIADIC ' if parameter.direction == 'v' else ''}${number + 1}{cast}")
    call = f"{sql.Identifier(*split(function.schema, name)).as_string()}({', '.join(given)})"
    outputs = [quoted(n) for n, _ in function.outputs]
    if function.returns_set:
        return [f"RETURN QUERY SELECT * FROM {call};", "RETURN;"]
    if function.returns_nothing:
        return [f"PERFORM {call};", "RETURN;"]
    if outputs:
        return [f"SELECT * INTO {', '.join(outputs)} FROM {call};", "RETURN;"]
    return [f"RETURN {call};"]


def _refusal(name: str, served: Sequence[int], dims: str) -> str:
    *most, last = map(str, served)
    named = f"{', '.join(most)} and {last}" if most else last
    words = f"{name} serves queries of {named} {plural(served[-1], 'dimension')}, not ".replace("%", "%%")
    return f"RAISE EXCEPTION {sql.Literal(f'{words}%').as_string()}, {dims} USING ERRCODE = 'data_exception';"
