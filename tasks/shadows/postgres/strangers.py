"""Vectors of unknown make where a run's own are, or are to be: two spaces in one column cannot be told apart."""

from collections.abc import Iterator
from functools import partial

from psycopg import sql

from tasks.base.errors import VerificationRefused
from tasks.base.words import counted
from tasks.runs import ledger, models
from tasks.runs.commands import command
from tasks.runs.plan import Target
from tasks.shadows.postgres.live.place import queue, side_table
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.counting import count
from tasks.stores.postgres.places import LivePlace


def refuse_strangers(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Raises VerificationRefused when the new column holds, or may come to hold, vectors that this run did not write."""
    for row in strangers(connection, run_id, target):
        raise VerificationRefused(row)


def strangers(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    """What is in the way of a column that holds this run's vectors and no others."""
    if owned := list(owner(connection, run_id, target)):
        yield from owned
    else:
        yield from unwritten(connection, run_id, target)


def owner(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    """What the column belongs to, by the registry of models, if that is not the run."""
    other = models.at(connection, target.place.schema, target.place.table, target.place.new_column)
    if other and other.run_id is None:
        yield f"{target.place.column} is registered as vectors that {other.table} came with: choose another new_column"
        return
    owning = other.run_id if other else _by_relation(connection, target)
    if owning in (None, run_id):
        return
    run = ledger.get(connection, owning)
    of_run = partial(command, run_id=owning, database=run.plan.request.database)
    way = {
        "cut_over": f"it is in use, and {of_run('catch-up')} brings it up to date",
        "contracted": "it is in use",
        "rolled_back": f"it can be cut over again, or dropped with {of_run('contract')}",
    }.get(run.state, f"roll that back first, {of_run('rollback')}")
    yield (
        f"{target.place.column} belongs to run {owning}: {way}; what it bought is kept. Or choose another new_column"
    )


def _by_relation(connection: Connection, target: Target[LivePlace]) -> str | None:
    """The run that the column belongs to, by an older ledger, which has no registry and is only read."""
    if models.exists(connection) or not ledger.exists(connection):
        return None
    row = connection.execute(
        "SELECT run_id FROM vecferry.relation WHERE source ->> 'table' = %s AND source ->> 'column' = %s",
        (f"{target.place.schema}.{target.place.table}", target.place.new_column),
    ).fetchone()
    return row[0] if row else None


def unwritten(connection: Connection, run_id: str, target: Target[LivePlace]) -> Iterator[str]:
    """Vectors in the column that the run did not write; a column that is there is read through for them."""
    side = side_table(target.place)
    if not target.place.in_table or not relations.has_column(
        connection, target.place.live.identifier, target.place.new_column
    ):
        return
    unknown = sql.SQL("{} IS NOT NULL").format(sql.Identifier(target.place.new_column))
    if relations.exists(connection, side):
        # A row whose key was changed took its vector along; it waits in the queue.
        unknown = sql.SQL(
            "{unknown} AND NOT EXISTS (SELECT 1 FROM {side} AS s WHERE {same}) "
            "AND {id} NOT IN (SELECT q.id FROM {queue} AS q WHERE q.id IS NOT NULL)"
        ).format(
            unknown=unknown,
            side=side,
            same=sql.SQL(target.place.live.same("s", "b")),
            id=sql.SQL(target.place.live.id("b")),
            queue=queue(target.place),
        )
    if rows := count(connection, sql.SQL("{} AS b").format(target.place.live.identifier), unknown):
        yield (
            f"{target.place.column} holds {counted(rows, 'vector')} that run {run_id} did not write, and two spaces "
            "in one column cannot be told apart: choose another new_column, or empty it"
        )
    model = models.of_run(connection, run_id, target.number)
    if model and model.space != target.space:
        yield (
            f"{target.place.column} holds vectors of {model.space}, but this run makes those of {target.space}: "
            "choose another new_column"
        )
