"""The SQL that a run over a live table will send and that changes something, for its plan: from the files that the run sends."""

from collections.abc import Iterator

from psycopg import sql

from tasks.planning.shown_sql import lines
from tasks.runs.names import index_names
from tasks.runs.plan import Target
from tasks.shadows.postgres import dispatcher, generated, live_access, live_place, search_functions
from tasks.shadows.postgres.live_statements import statements_of
from tasks.stores.postgres import hnsw
from tasks.stores.postgres.catalogue import find
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import SCHEMA, LivePlace
from tasks.stores.postgres.table import Table, index_statements
from tasks.stores.postgres.wire import copy_statement


def statements(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    """A line for each statement. Of functions that choose between models the names: their bodies are made from the registry
    of models, as it is when they are made."""
    yield from lines(*live_place.statements(connection, run_id, target))
    yield from _rows(target.place)
    yield from _index(run_id, target)
    yield from _functions(connection, run_id, target)
    for line in lines(*live_access.share_statements(connection, target)):
        yield f"{line}  -- at the cutover"


def _rows(place: LivePlace) -> Iterator[str]:
    known = statements_of(place)
    if known.copies:
        yield from lines(copy_statement(known.into))
        return
    yield from lines(known.upsert if place.beside else known.update)


def _index(run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    place = target.place
    where = (SCHEMA, place.shadow) if place.beside else (place.schema, place.table)
    table = Table(*where, place.layout, column="embedding" if place.beside else quoted(place.new_column))
    name = index_names(run_id, place.table, target.name)["hnsw"]
    parameters = hnsw.parameters(target.collection)
    yield from lines(*index_statements(table, name, *parameters, concurrently=not place.beside))


def _functions(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    schema, function = target.place.schema, target.place.function
    if function is None:
        return
    made, second = dispatcher.names(run_id, target)
    yield from lines(search_functions.body_statement(connection, target, made))
    taken, own = find(connection, schema, second, switched=True), find(connection, schema, function, switched=True)
    if taken is None or taken.made:
        yield _chooses(schema, second)
    if own:
        yield f"{_chooses(schema, function)}  -- at the cutover"
        if not generated.is_generated(own):
            yield f"-- what {schema}.{function} is now is kept beside it under another name, for the way back"
        yield f"-- all of them are for those to execute who may execute {schema}.{function}"


def _chooses(schema: str, name: str) -> str:
    return f"CREATE OR REPLACE FUNCTION {sql.Identifier(schema, name).as_string()}(…)"
