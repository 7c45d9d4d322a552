"""The switch of columns whose names change: the new one takes the name that people know, and the old one is kept under its own.

SQL that PostgreSQL holds parsed, such as that of views, follows a column whatever it is called; text that names it does not. Of ours it
is written anew here, and column_dependents tells of what is the application's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from psycopg import sql

from sql import statement
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.runs import ledger, models, search_bodies
from tasks.runs.commands import command
from tasks.runs.plan import Target
from tasks.shadows.postgres import search_functions
from tasks.shadows.postgres.underivable import Underivable
from tasks.stores.postgres import relations
from tasks.stores.postgres.catalogue import Function, define, find, is_generated
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace


def renames(place: LivePlace) -> sql.Composed:
    """What renames them at the switch."""
    return _statement("cutover_columns", place)


def renamed(place: LivePlace) -> LivePlace:
    """The place as its columns are called after the switch."""
    if place.renaming is None:
        return place
    return replace(place, new_column=place.renaming.column, live=replace(place.live, vectors=place.renaming.kept))


def problems(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What keeps the columns from being renamed."""
    place, renaming = target.place, target.place.renaming
    if renaming is None or place.new_column == renaming.column:
        return
    other = models.at(connection, place.schema, place.table, renaming.column)
    if other and other.run_id and target.old_space and other.space != target.old_space:
        yield (
            f"{place.schema}.{place.table}.{renaming.column} holds vectors of {other.space}, by run {other.run_id}, and not of "
            f"{target.old_space}: name their model with old_embedder"
        )
    if place.live.vectors != renaming.column:
        who = f"those of run {other.run_id}" if other and other.run_id else "others"
        yield (
            f"{place.schema}.{place.table}.{renaming.column} holds other vectors than this run was planned from, {who}: take that "
            "run back, or start a new one"
        )
    if not relations.may_be_null(connection, place.live.identifier, place.live.vectors):
        drop = (
            f"ALTER TABLE {place.live.identifier.as_string()} ALTER COLUMN {quoted(place.live.vectors)} DROP NOT NULL"
        )
        yield (
            f"{place.schema}.{place.table}.{place.live.vectors} is NOT NULL, so from the cutover on a row without an old vector could "
            f"not be written: {drop}"
        )
    if relations.has_column(connection, place.live.identifier, renaming.kept):
        yield (
            f"{place.schema}.{place.table} has a column {renaming.kept} already, which the old vectors would be called from the "
            f"cutover on: {_way_on(connection, target, renaming.kept)}"
        )
    yield from _spelled(connection, target)


def notes(target: Target[LivePlace], model: str) -> Iterator[str]:
    """What the application has to change with the switch to ``model``."""
    place, renaming = target.place, target.place.renaming
    if renaming is None:
        yield from _beside(target, model) if place.shared else ()
        return
    table, old = f"{place.schema}.{place.table}", place.live.layout.dimensions
    written = f", and not by {place.write_function}," if place.write_function else ""
    other = old is not None and old != target.dimensions
    fails = (
        f"; what writes {counted(old or 0, 'dimension')} to {renaming.column} itself{written} fails from then on"
        if other
        else ""
    )
    yield (
        f"after the cutover {table}.{renaming.column} holds the vectors of {model}, {counted(target.dimensions or 0, 'dimension')}, and "
        f"{renaming.kept} the old ones: every instance of the application needs the new model with its preprocessing, the threshold "
        f"that goes with it, and a restart{fails}"
    )
    yield f"until the contract, catch-up makes the vectors of rows of {table} that come in without one"


def _beside(target: Target[LivePlace], model: str) -> Iterator[str]:
    """The same where the new vectors lie beside the table."""
    place, old = target.place, target.place.live.layout.dimensions
    table, new, column = (
        f"{place.schema}.{place.table}",
        counted(target.dimensions or 0, "dimension"),
        place.live.vectors,
    )
    of_old = f", and those of {old:,} to {column}" if old and old != target.dimensions else ""
    yield (
        f"after the cutover {table} is searched by the vectors of {model}, {new}, which lie beside it, and {column} keeps the old ones: "
        "every instance of the application needs the new model with its preprocessing, the threshold that goes with it, and a restart; "
        f"{place.write_function} writes vectors of {new} beside the table{of_old}"
    )
    yield f"catch-up makes the vectors of rows of {table} that come in without one"


def _spelled(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """Functions that are kept for the way back, and whose text cannot be written for a column of another name."""
    for name in target.place.functions:
        function = find(connection, target.place.schema, name, switched=True)
        if function is None or is_generated(function):
            continue
        try:
            search_functions.respell(connection, target, function, {})
        except Underivable as e:
            yield (
                f"{target.place.schema}.{name} cannot go along with its column to another name: {e}. Choose layout=side_table, which "
                "renames none"
            )


def _way_on(connection: Connection, target: Target[LivePlace], name: str) -> str:
    kept = models.at(connection, target.place.schema, target.place.table, name)
    if kept is None:
        return f"rename it, ALTER TABLE {target.place.live.identifier.as_string()} RENAME COLUMN {quoted(name)} TO …"
    taken = next(
        (m for m in models.ways_back(connection, kept.table_schema, kept.table_name) if m.took_over_from == kept.model),
        None,
    )
    if taken is None or taken.run_id is None:
        return "an earlier migration left it there; drop it"
    database = ledger.get(connection, taken.run_id).plan.request.database
    return f"run {taken.run_id} keeps it for its way back, contract that first, {command('contract', taken.run_id, database)}"


def take_over(connection: Connection, target: Target[LivePlace]) -> None:
    """Gives the new column the name that people know, and the old one its own; functions of ours that name them go along. Raises
    UsageError where the name belongs to others by now."""
    place, renaming = target.place, target.place.renaming
    if renaming is None or place.new_column == renaming.column:
        return
    for problem in problems(connection, target):
        raise UsageError(problem)  # named by the plan, and there since
    names = {renaming.column: renaming.kept, renaming.working: renaming.column}
    _rename(connection, target, renames(place), names)


def put_back(connection: Connection, target: Target[LivePlace]) -> None:
    """The reverse, of a run whose vectors are searched. Raises UsageError where the old column is gone."""
    place, renaming = target.place, target.place.renaming
    if renaming is None or place.new_column != renaming.column:
        return
    if not relations.has_column(connection, place.live.identifier, renaming.kept):
        raise UsageError(f"{place.schema}.{place.table} has no column {renaming.kept} any longer to go back to")
    names = {renaming.column: renaming.working, renaming.kept: renaming.column}
    _rename(connection, target, _statement("rollback_columns", place), names)


def _rename(connection: Connection, target: Target[LivePlace], change: sql.Composed, names: Mapping[str, str]) -> None:
    place = target.place
    try:  # before: what a name means in a body is looked up in the table as it is
        bodies = [(f, search_functions.respell(connection, target, f, names)) for f in _functions(connection, target)]
    except Underivable as e:
        raise UsageError(f"a function of {place.schema}.{place.table} cannot go along with its column: {e}") from e
    connection.execute(change)
    for function, body in bodies:
        if body is not None and body != function.body:
            define(connection, function, body=body)
    for name in names:  # the first makes room for the second
        if model := models.at(connection, place.schema, place.table, name):
            models.rename(connection, model, names[name])


def _functions(connection: Connection, target: Target[LivePlace]) -> Iterator[Function]:
    """Those of ours that name columns of the table."""
    place = target.place
    bodies = dict.fromkeys(
        body
        for model in models.of_table(connection, place.schema, place.table)
        for name, body in search_bodies.of_model(connection, model)
        if body != name
    )
    for body in bodies:
        if function := find(connection, place.schema, body):
            yield function


def _statement(name: str, place: LivePlace) -> sql.Composed:
    assert place.renaming
    return statement(
        name,
        schema=place.schema,
        table=place.table,
        column=place.renaming.column,
        kept=place.renaming.kept,
        working=place.renaming.working,
    )
