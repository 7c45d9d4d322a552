"""Functions of the application's that name a column of vectors, as far as their text can be read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tasks.base.errors import VerificationRefused
from tasks.base.words import agreeing
from tasks.runs import models, search_bodies
from tasks.runs.plan import Target
from tasks.shadows.postgres.called import relation_of
from tasks.shadows.postgres.derive import parsed
from tasks.shadows.postgres.scopes import read
from tasks.shadows.postgres.underivable import Routine, Underivable
from tasks.stores.postgres import relations
from tasks.stores.postgres.catalogue import MADE
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import split
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.syntax import tokens

_FUNCTIONS = """
    SELECT n.nspname::text, p.proname::text, format('%%I.%%I', n.nspname, p.proname), p.oid::regprocedure::text, l.lanname,
           pg_get_functiondef(p.oid), coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), coalesce(p.proconfig, '{}'),
           p.prosqlbody IS NOT NULL,
           EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass(%(table)s) AND tgfoid = p.oid)
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE l.lanname NOT IN ('c', 'internal') AND p.prokind IN ('f', 'p')
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'vecferry')
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
      AND NOT coalesce(starts_with(obj_description(p.oid, 'pg_proc'), %(made)s), false) AND strpos(p.prosrc, %(made)s) = 0
      AND strpos(lower(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)), lower(%(column)s)) > 0
    ORDER BY 1, 2, 3
"""


@dataclass(frozen=True)
class Reader:
    """A function that names the column."""

    schema: str
    name: str
    called: str
    """As SQL names it."""
    signature: str
    """The same with its arguments."""
    compares: bool
    """Whether it takes a distance from it."""
    parsed: bool
    """Whether PostgreSQL holds it parsed (BEGIN ATOMIC), so that it follows a column whatever that is called."""
    read: bool
    """Whether its text could be read; else it names both, column and table, and nobody can say for what."""


def readers(connection: Connection, target: Target[LivePlace], column: str) -> Iterator[Reader]:
    """Those that name this column of the live table, vecferry's own aside."""
    live, kept = target.place.live, _bodies(connection, target)
    given = {"table": live.identifier.as_string(), "column": column, "made": MADE}
    for schema, name, called, signature, language, definition, text, config, parsed_ahead, fires in connection.execute(
        _FUNCTIONS, given
    ):
        if (schema, name) in kept:
            continue
        body = text.removeprefix("BEGIN ATOMIC").removesuffix("END") if parsed_ahead else text
        routine = Routine(name, language, body, definition, False, (), ())
        try:
            readings = [read(p, column, relation_of(connection, config, column, target)) for p in parsed(routine)]
        except Underivable:
            if live.table.lower() in body.lower() or fires:
                yield Reader(schema, name, called, signature, False, parsed_ahead, False)
            continue
        mentions = [mention for reading in readings for mention in reading.mentions]
        written = any(reading.assignments for reading in readings)
        if mentions or written or (fires and column in {word.name for word in tokens(body)}):
            yield Reader(schema, name, called, signature, any(m.compared for m in mentions), parsed_ahead, True)


def _bodies(connection: Connection, target: Target[LivePlace]) -> set[tuple[str, str]]:
    """What the registry keeps of functions that are switched: 0.1 has not marked its copies."""
    if not models.exists(connection):
        return set()
    place = target.place
    return {
        split(place.schema, body)
        for model in models.of_table(connection, place.schema, place.table)
        for name, body in search_bodies.of_model(connection, model)
        if body != name
    }


def told(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What is to be known of those that are not switched, where no column takes another's name."""
    place = target.place
    if place.renaming and place.new_column != place.renaming.column:
        return
    if not relations.has_column(connection, place.live.identifier, place.live.vectors):
        return
    column = f"{place.schema}.{place.table}.{place.live.vectors}"
    others = [r for r in unswitched(connection, target) if not r.parsed]  # column_dependents tells of those
    if names := _names(r for r in others if r.read):
        yield (
            f"{column} is named by {', '.join(names)}, which the run does not switch: {agreeing(len(names), 'they')} "
            f"{agreeing(len(names), 'go')} on with the old vectors, and no contract drops them as long as {agreeing(len(names), 'they')} "
            f"{agreeing(len(names), 'use')} them. Name with `function` what is to be switched"
        )
    if names := _names(r for r in others if not r.read):
        yield f"{column} may be named by {', '.join(names)}, which cannot be read: a contract breaks what names it"


def refuse_readers(connection: Connection, target: Target[LivePlace], column: str) -> None:
    """Raises VerificationRefused where functions would break if the column were dropped."""
    place = target.place
    if names := _names(r for r in readers(connection, target, column) if r.read):
        raise VerificationRefused(
            f"to drop {place.schema}.{place.table}.{column} would break {', '.join(names)}, so nothing was dropped: let "
            f"{agreeing(len(names), 'them')} name {place.new_column} instead, or drop {agreeing(len(names), 'them')}, and run this "
            "command again"
        )


def _names(several: Iterable[Reader]) -> list[str]:
    return list(dict.fromkeys(reader.called for reader in several))


def unswitched(connection: Connection, target: Target[LivePlace]) -> list[Reader]:
    """Those that name the old column and are not switched by the run."""
    place = target.place
    switched = {split(place.schema, function) for function in place.functions}
    return [r for r in readers(connection, target, place.live.vectors) if (r.schema, r.name) not in switched]
