"""What is changed of the tables that serve several models: statement by statement, as a plan shows it and as it is sent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg import sql

from tasks.shadows.postgres.models import functions
from tasks.stores.interface import Collection
from tasks.stores.postgres import hnsw
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables
from tasks.stores.postgres.table import Table


@dataclass(frozen=True)
class Change:
    """One statement, or several that belong together."""

    makes: str
    """For people: what there is then, by name."""
    statements: tuple[sql.Composed, ...]
    alone: bool = False
    """Whether its statements cannot be part of a transaction."""
    built: tuple[Table, str, Collection] | None = None
    """The index that it builds, with as much memory as a build can use: table, name, what for."""
    only: str = ""
    """SQL of the rows that the index has."""


def change(makes: str, *statements: sql.Composed, alone: bool = False) -> Change:
    """A change of these statements."""
    return Change(makes, statements, alone)


def send(connection: Connection, changes: Iterable[Change]) -> list[str]:
    """Sends all statements as they come, in the caller's transaction; returns what there is then."""
    done = []
    for one in changes:
        for each in one.statements:
            connection.execute(each)
        done.append(one.makes)
    return done


def send_one_by_one(connection: Connection, changes: Iterable[Change]) -> Iterator[str]:
    """Sends each change by itself, in a transaction with short locks unless it can be part of none; yields what there is then."""
    for one in changes:
        if one.built:
            hnsw.build(connection, *one.built, concurrently=True, only=one.only)
        elif one.alone:
            send(connection, [one])
        else:
            locked(connection, lambda one=one: send(connection, [one]))  # type: ignore[misc]
        yield one.makes


def registry_changed(connection: Connection, tables: ModelTables, following: bool = False) -> None:
    """Brings what is made from the registry in line with it, in the caller's transaction; ``following``: so that columns may get other
    names next."""
    functions.remake(connection, tables, following)


def registry_gone(connection: Connection, tables: ModelTables) -> None:
    """Takes away what is made from the registry, in the caller's transaction."""
    functions.remove(connection, tables)
