"""The SQL that a run over a live table will send and that changes something, for its plan: from the files that the run sends."""

from collections.abc import Iterator
from functools import partial

from psycopg import sql

from tasks.planning.shown_sql import group, lines, note
from tasks.runs.names import index_names
from tasks.runs.plan import Target
from tasks.shadows.postgres import dispatcher, renaming, search_functions
from tasks.shadows.postgres.live import access, place as live_place
from tasks.shadows.postgres.live.statements import statements_of
from tasks.stores.postgres import hnsw, relations
from tasks.stores.postgres.catalogue import find, is_generated
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import shown, split
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.table import Table, index_statements
from tasks.stores.postgres.wire import copy_statement


def statements(connection: Connection, run_id: str, target: Target[LivePlace], limited: bool) -> Iterator[str]:
    """A line for each statement, and one before those that are sent at the same time. Of functions that choose between models
    the names: their bodies are made from the registry of models, as it is when they are made. A ``limited`` run is not cut
    over."""
    when = partial(group, target.name)
    yield from filling(connection, run_id, target)
    yield from when("once all rows are loaded", [*_index(run_id, target), *_made(connection, run_id, target)])
    yield from following(target)
    if not limited:
        shared = lines(*access.share_statements(connection, target))
        yield from when("at the cutover", [*_switched(connection, target), *shared])
        later = lines(*_later(connection, target))
        yield from when("while catching up after the cutover", later) if later else ()


def filling(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    """What is sent until all rows are loaded."""
    when, known = partial(group, target.name), statements_of(target.place)
    copied, filled = known.copies, known.write
    removed = [known.remove] if target.place.in_shadow else [known.empty, known.remove]
    passed_by = [known.passed_by] if target.place.vectors.of else []
    yield from when("before rows are read", lines(*live_place.statements(connection, run_id, target)))
    yield from when(
        "while loading" if copied else "while loading and catching up",
        lines(copy_statement(known.into) if copied else filled),
    )
    yield from when(
        "for rows that change or go meanwhile, or are loaded again", lines(*removed, known.note, *passed_by)
    )
    yield from when("for rows whose text is refused", lines(known.refuse))


def following(target: Target[LivePlace]) -> Iterator[str]:
    """What is sent while catching up, and was not before."""
    known = statements_of(target.place)
    moved = [known.moved] if target.place.live.only else []
    more = [known.write] if known.copies else []
    yield from group(target.name, "while catching up", lines(*more, *moved, known.done, known.truncated))


def _index(run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    place = target.place
    vectors = place.vectors
    table = Table(vectors.schema, vectors.table, place.layout, column=quoted(vectors.column))
    name = index_names(run_id, place.table, target.name)["hnsw"]
    parameters = hnsw.parameters(target.collection)
    yield from lines(*index_statements(table, name, *parameters, concurrently=not place.in_shadow))


def _made(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    for function in target.place.functions:
        made, second = dispatcher.names(run_id, target, function)
        yield from lines(search_functions.body_statement(connection, target, function, made))
        taken = find(connection, target.place.schema, second, switched=True)
        if taken is None or taken.made:
            yield chooses(target.place.schema, second)


def _switched(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    schema = target.place.schema
    for function in target.place.functions:
        if not (own := find(connection, schema, function, switched=True)):
            continue
        yield chooses(schema, function)
        if not is_generated(own):
            yield note(f"what {shown(schema, function)} is now is kept beside it under another name, for the way back")
        yield note(f"all of them are for those to execute who may execute {shown(schema, function)}")
    if target.place.renaming:
        yield from lines(renaming.renames(target.place))
        yield note("functions of vecferry's that name these columns name them as they are called then")


def _later(connection: Connection, target: Target[LivePlace]) -> Iterator[sql.Composed]:
    """What is sent then and was not before: by the names that columns have by then, and of old vectors."""
    place = renaming.renamed(target.place)
    known = statements_of(place)
    if place != target.place:
        yield from (known.write, known.empty)
    if target.old_space and relations.has_column(connection, place.live.identifier, target.place.live.vectors):
        yield known.update_old


def chooses(schema: str, name: str) -> str:
    """What a plan shows of a function whose body is made from the registry of models at the time."""
    return f"CREATE OR REPLACE FUNCTION {sql.Identifier(*split(schema, name)).as_string()}(…)"
