"""What a search function is called with to try it: arguments that find something, and stored vectors of each model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from psycopg import sql

from tasks.runs.models import Model
from tasks.runs.plan import Target
from tasks.shadows.postgres import probe
from tasks.stores.postgres.catalogue import Function
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace


@dataclass(frozen=True)
class Asking:
    """What is asked, whatever the query's vector."""

    function: Function
    query: int | None
    """The argument that is the query, by number; None where there is none."""
    dropped: str | None
    """The column of the table that is about to be dropped."""
    settings: Mapping[str, str]
    """What policies and filters read."""


def calls(
    connection: Connection,
    target: Target[LivePlace],
    asking: Asking,
    served: Mapping[int, Model],
    wanted: Mapping[int, Model],
) -> tuple[Callable[[str], str] | None, dict[int, str]]:
    """A call by the query's vector, with arguments that find something in what is ``served``, and that of each number of dimensions
    that is ``wanted``; none where nothing is stored to ask for."""
    function, query = asking.function, asking.query
    sample = probe.sample(connection, target.place.live)
    vectors = _vectors(connection, target, wanted)
    if not vectors:
        return None, {}
    kind = function.inputs[query].type if query is not None else ""
    first, chosen = next((size for size in served if size in vectors), None), None

    def by_text(call: Callable[[str], str]) -> Callable[[str], str]:
        return lambda vector: call(probe.literal(vector, kind))

    for call in map(by_text, probe.calls(function, query, sample, asking.dropped)):
        chosen = chosen or call
        if first is not None and probe.ask(connection, call(vectors[first]), function.owner, asking.settings).rows:
            chosen = call
            break
    return chosen, {size: chosen(vector) for size, vector in vectors.items()} if chosen else {}


def _vectors(connection: Connection, target: Target[LivePlace], models: Mapping[int, Model]) -> dict[int, str]:
    """By the models' dimensions, stored vectors of one row, if there is a row that has all of them; none is a zero vector, from
    which all is equally far."""
    name, operator = target.place.live.id(), f"OPERATOR({pgvector_schema(connection)}.<#>)"
    vectors, rows = dict[int, str](), list[str]()
    for size, model in models.items():
        place = sql.Identifier(model.place_schema, model.place_name)
        column = sql.SQL(quoted(model.column_name))
        query = sql.SQL("SELECT {name}, {c}::text FROM {place} WHERE ({c} {operator} {c}) < 0 LIMIT 1").format(
            name=sql.SQL(name), c=column, place=place, operator=sql.SQL(operator)
        )
        of_row = sql.SQL("SELECT {name}, {c}::text FROM {place} WHERE ({c} {operator} {c}) < 0 AND {name} = %s").format(
            name=sql.SQL(name), c=column, place=place, operator=sql.SQL(operator)
        )
        row = connection.execute(of_row, (rows[0],)).fetchone() if rows else None
        row = row or connection.execute(query).fetchone()
        if row:
            rows.append(row[0])
            vectors[size] = row[1]
    return vectors
