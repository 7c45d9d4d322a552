"""The body of a function that people call, which calls the function of the model with the query's dimensions. It is PL/pgSQL, or SQL
where PostgreSQL puts the application's own into the queries of its callers: a LIMIT of theirs ends a search there as it did."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from tasks.base.words import plural
from tasks.runs.plan import Target
from tasks.runs.search_bodies import Searched
from tasks.shadows.postgres.called import Called
from tasks.shadows.postgres.underivable import KINDS
from tasks.stores.postgres.catalogue import MADE, Function, define, find
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.function_names import split
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.syntax import NotParsed, statements, walk

ALIKE = 170000
"""The PostgreSQL from which on each arm of a UNION ALL is planned for as many rows as its caller takes. Before, that is so where the arms
have columns of other types, and no longer since."""
ROW = '"vecferry: row"'


@dataclass(frozen=True)
class _Call:
    """Of a function that searches one model, for the arguments of the one that chooses."""

    function: Function
    called: Function | None
    name: str

    def __call__(self, number: int | None = None, given: str = "") -> str:
        """SQL of it; the argument of that number is ``given`` otherwise than as it came."""
        arguments = []
        for at, parameter in enumerate(self.function.inputs):
            theirs = self.called.inputs[at] if self.called else parameter
            cast = f"::{theirs.type}" if theirs.kind != parameter.kind and parameter.kind in KINDS else ""
            variadic, value = "VARIADIC " if parameter.direction == "v" else "", given if at == number else f"${at + 1}"
            arguments.append(f"{variadic}{value}{cast}")
        name = sql.Identifier(*split(self.function.schema, self.name)).as_string()
        return f"{name}({', '.join(arguments)})"


@dataclass(frozen=True)
class _Choice:
    """Between models, by the dimensions of a query."""

    function: Function
    query: int
    """The argument that is the query, by number."""
    dimensions: str
    """SQL of the query's."""
    vector: str
    """pgvector's type."""
    calls: Mapping[int | None, _Call]
    """By the dimensions of a model, None where it may have any; the first is for a query that is NULL too."""

    @property
    def sizes(self) -> list[int]:
        return sorted(filter(None, self.calls))

    @property
    def refusal(self) -> str:
        """What is said of other dimensions, but for these."""
        *most, last = map(str, self.sizes)
        named = f"{', '.join(most)} and {last}" if most else last
        return f"{self.function.name} serves queries of {named} {plural(self.sizes[-1], 'dimension')}, not "


def choose(
    connection: Connection, target: Target[LivePlace], called: Called, function: Function, models: Sequence[Searched]
) -> None:
    """Gives the function, what is ``called`` or one like it, a body that calls the function of the model with the query's dimensions;
    the first of several that have as many, and of all where the query has none: it is NULL, or there is no vector among the
    arguments."""
    calls: dict[int | None, _Call] = {}
    for searched in models:
        body = find(connection, function.schema, searched.body, switched=True)
        calls.setdefault(searched.model.dimensions, _Call(function, body, searched.body))
    query, extension, choice = called.query, pgvector_schema(connection), None
    if query is not None:
        cast = "" if function.inputs[query].kind in KINDS else f"::{extension}.vector"
        dims = f"{extension}.vector_dims(${query + 1}{cast})"
        choice = _Choice(function, query, dims, f"{extension}.vector", calls)
    first, origin = next(iter(calls.values())), called.origin
    if origin and stays_inlined(origin.function, target.place):
        alike = connection.info.server_version >= ALIKE
        lines, language = _selected(choice, alike) if choice else [f"SELECT * FROM {first()}"], "sql"
    else:
        chosen = _chosen(choice) if choice else _returned(function, first)
        lines, language = ["BEGIN", *(f"    {line}" for line in (*_gate(target), *chosen)), "END"], "plpgsql"
    made = f"-- {MADE}, from vecferry.model and vecferry.search_function."
    define(connection, function, body="\n".join(["", made, *lines, ""]), language=language)


def stays_inlined(own: Function, place: LivePlace) -> bool:
    """Whether PostgreSQL puts what chooses into the queries of its callers, as it does the application's own function: a LIMIT of theirs
    ends its search, and none that an argument sets."""
    if not own.inlined or place.renaming:
        return False
    try:
        nodes = [node for piece in statements(own.body) for _, node in walk(piece.tree)]
    except NotParsed:
        return False
    limits = [node["limitCount"] for node in nodes if "limitCount" in node]
    return not any("fields" in part or "number" in part for limit in limits for _, part in walk(limit))


def _gate(target: Target[LivePlace]) -> list[str]:
    """A statement that waits for the end of a renaming that goes on. What is called after it is looked up then, and names the columns
    as they are called by then; a body that was looked up before, and waited, would name them as they were."""
    table = target.place.live.identifier.as_string()
    return [f"PERFORM FROM {table} LIMIT 0;"] if target.place.renaming else []


def _chosen(choice: _Choice) -> Iterator[str]:
    """Statements of PL/pgSQL."""
    function = choice.function
    returned = {size: [f"    {line}" for line in _returned(function, call)] for size, call in choice.calls.items()}
    for size in choice.sizes:
        yield from (f"IF {choice.dimensions} = {size} THEN", *returned[size], "END IF;")
    if not function.strict:
        yield from (f"IF ${choice.query + 1} IS NULL THEN", *next(iter(returned.values())), "END IF;")
    if None in choice.calls:
        yield from _returned(function, choice.calls[None])
    else:
        words = sql.Literal(f"{choice.refusal.replace('%', '%%')}%").as_string()
        yield f"RAISE EXCEPTION {words}, {choice.dimensions} USING ERRCODE = 'data_exception';"


def _selected(choice: _Choice, alike: bool) -> list[str]:
    """A query in SQL. Its arms are ``alike``, or one column of theirs differs in its type."""
    arms, function = list(_arms(choice)), choice.function
    if alike or len(arms) == 1:
        return "\nUNION ALL\n".join(f"SELECT * FROM {call}\nWHERE {condition}" for call, condition in arms).splitlines()
    whole = bool(function.row_of and not function.outputs)
    names = [quoted(name) for name, _ in function.outputs] or [ROW]
    selects = [
        f"SELECT {ROW if whole else '*'}, 1::{'int8' if number else 'int4'} FROM {call} AS {ROW}\nWHERE {condition}"
        for number, (call, condition) in enumerate(arms)
    ]
    result = f"({ROW}).*" if whole else ", ".join(names)
    united = "\nUNION ALL\n".join(selects).splitlines()
    return [f"SELECT {result} FROM (", *united, f') AS chosen ({", ".join(names)}, "vecferry: arm")']


def _arms(choice: _Choice) -> Iterator[tuple[str, str]]:
    """Calls and when each is meant: what the others select from is not looked at. They get no vector, since PostgreSQL may well
    cast it to their dimensions before."""
    first, dims = next(iter(choice.calls)), choice.dimensions
    for size, call in choice.calls.items():
        others = ", ".join(map(str, choice.sizes))
        condition = f"{dims} = {size}" if size else f"{dims} NOT IN ({others})" if others else "true"
        given = f"CASE WHEN {condition} THEN ${choice.query + 1} END"
        yield call(choice.query, given), _condition_of_first(choice, first) if size == first else condition


def _condition_of_first(choice: _Choice, first: int | None) -> str:
    """Holds for its own dimensions and for NULL; fails for dimensions that nobody serves."""
    refused = (
        f"({sql.Literal(choice.refusal).as_string()} || {choice.dimensions})::{choice.vector} IS NULL"
        if first
        else "true"
    )
    rest = f"{choice.dimensions} IS NULL" if first and None in choice.calls else refused
    whens = [f"WHEN {size} THEN {str(size == first).lower()}" for size in choice.sizes]
    return f"CASE {choice.dimensions} {' '.join(whens)} ELSE {rest} END" if whens else "true"


def _returned(function: Function, call: _Call) -> list[str]:
    """Statements of PL/pgSQL that return what another function returns for the same arguments."""
    outputs = [quoted(n) for n, _ in function.outputs]
    if function.returns_set:
        return [f"RETURN QUERY SELECT * FROM {call()};", "RETURN;"]
    if function.returns_nothing:
        return [f"PERFORM {call()};", "RETURN;"]
    if outputs:
        return [f"SELECT * INTO {', '.join(outputs)} FROM {call()};", "RETURN;"]
    return [f"RETURN {call()};"]
