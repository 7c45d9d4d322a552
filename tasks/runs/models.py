"""The registry of models: which vectors of a live table there are, of which space, where, and which of them are searched.

A run claims its column here before it writes anything, and people are told by the view vecferry.active_space which model
is meant. What happens to the model of a run, and to the one that it takes over from:

    begin       building                                       is registered, when the table came with it
    index       built
    cutover     active                                         built; it is kept for the way back
    rollback    built; before a cutover it is forgotten        active
    contract    active; after a rollback it is forgotten       retired: its vectors are dropped
"""

from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

from psycopg import sql
from psycopg.rows import class_row

from tasks.base.errors import UsageError
from tasks.runs import ledger
from tasks.runs.commands import command
from tasks.stores.interface import Metric
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import text_columns

State = Literal["building", "built", "active", "retired"]


@dataclass(frozen=True)
class Model:
    """The vectors of one space that a live table has, or had."""

    model: int
    table_schema: str
    table_name: str
    content: str
    """What of a row is embedded: the template of its text."""
    place_schema: str
    place_name: str
    """The relation that is searched: the live table, or the view of the table that lies beside it."""
    column_name: str
    dimensions: int | None
    """None where the column takes any."""
    metric: Metric
    space: str
    """Its fingerprint; empty where nobody knows it."""
    state: State
    run_id: str | None
    """The run that made it; None for vectors that the table came with."""
    target: int | None
    planned_from: int | None
    """The model whose vectors its run compares its own with."""
    took_over_from: int | None
    """The model that was active before it, for as long as it can be gone back to."""

    @property
    def table(self) -> str:
        return f"{self.table_schema}.{self.table_name}"

    @property
    def beside(self) -> bool:
        """Whether the vectors lie in a table of their own."""
        return (self.place_schema, self.place_name) != (self.table_schema, self.table_name)


COLUMNS = ", ".join(field.name for field in fields(Model))
_OF_TABLE = "table_schema = %s AND table_name = %s AND to_jsonb(m) ->> 'set_id' IS NULL"  # older ledgers have no sets


def hold(connection: Connection) -> None:
    """Until the transaction ends nobody else changes the registry, or the functions that are made from it."""
    connection.execute("LOCK TABLE vecferry.model IN SHARE ROW EXCLUSIVE MODE")


def of_table(connection: Connection, schema: str, table: str) -> list[Model]:
    """The models of a live table that are not retired, in the order in which they came."""
    return _select(connection, f"{_OF_TABLE} AND state <> 'retired'", schema, table)


def at(connection: Connection, schema: str, table: str, column: str) -> Model | None:
    """The model that has the column, of the table or beside it."""
    return next((m for m in of_table(connection, schema, table) if m.column_name == column), None)


def of_run(connection: Connection, run_id: str, target: int) -> Model | None:
    """The model that a run made of one of its targets, or makes."""
    return next(iter(_select(connection, "run_id = %s AND target = %s", run_id, target)), None)


def active(connection: Connection, schema: str, table: str, content: str) -> Model | None:
    """The model that a table's ``content`` is searched by."""
    return next((m for m in of_table(connection, schema, table) if (m.state, m.content) == ("active", content)), None)


def register(connection: Connection, model: Model) -> Model:
    """Registers vectors that the table came with, and which are searched unless others are. What was said of the same
    column before is corrected; its number is the registry's to give."""
    known = at(connection, model.table_schema, model.table_name, model.column_name)
    if known and known.run_id:
        return known
    if known is None:
        known = _insert(connection, model)
        searched = active(connection, model.table_schema, model.table_name, known.content) is not None
    else:
        searched = bool(ways_back(connection, model.table_schema, model.table_name))
    if not searched:
        _update(connection, known, state="active")
    _update(connection, known, dimensions=model.dimensions, metric=model.metric, space=model.space or known.space)
    return known


def claim(connection: Connection, model: Model) -> None:
    """Registers the model that a run is about to make, unless it is there."""
    assert model.run_id is not None
    assert model.target is not None
    if of_run(connection, model.run_id, model.target) is None:
        _insert(connection, model)


def built(connection: Connection, model: Model) -> None:
    """Notes that a model can be searched."""
    if model.state == "building":
        _update(connection, model, state="built")


def to_be_replaced(connection: Connection, model: Model) -> Model | None:
    """The model that this one would take over from, and a rollback goes back to."""
    now = _active_in_place_of(connection, model)
    if now and now.run_id is None and now.model != model.model:
        # Of vectors that no run made, those are searched that were named last.
        where = "model = %s AND run_id IS NULL AND state <> 'retired'"
        return next(iter(_select(connection, where, model.planned_from)), now)
    return now


def _active_in_place_of(connection: Connection, model: Model) -> Model | None:
    """The model that is active where this one would be."""
    now = active(connection, model.table_schema, model.table_name, model.content)
    for old in _select(connection, "model = %s", model.planned_from):
        if now is None:  # its run embeds another text of the rows than the one before it
            now = active(connection, model.table_schema, model.table_name, old.content)
            if now and now.run_id and not _of_like_content(now, model):
                return None  # that is another search of the same rows, and goes on
    return now


def _of_like_content(now: Model, model: Model) -> bool:
    """Whether a later run has changed the text that is embedded, rather than embedded another one besides."""
    return now.run_id != model.run_id and not set(text_columns(now.content)).isdisjoint(text_columns(model.content))


def compared(connection: Connection, model: Model) -> Model | None:
    """The model whose vectors its run compares its own with, while they are there."""
    return next(iter(_select(connection, "model = %s AND state <> 'retired'", model.planned_from)), None)


def activate(connection: Connection, model: Model) -> None:
    """Makes it the one that is searched, in place of the one that is."""
    before, now = to_be_replaced(connection, model), _active_in_place_of(connection, model)
    if now and now.model == model.model:
        return
    if now:
        _update(connection, now, state="built")
    _update(connection, model, state="active", took_over_from=before.model if before else None)


def go_back(connection: Connection, model: Model) -> Model | None:
    """Makes the one that it took over from the one that is searched; returns that. Raises UsageError when another run has
    taken over meanwhile."""
    if model.state != "active":
        raise UsageError(_covered(connection, model))
    before = predecessor(connection, model)
    _update(connection, model, state="built", took_over_from=None)
    # Vectors of the table's own may lie under several texts, each of which has taken over from them.
    if before and active(connection, before.table_schema, before.table_name, before.content) is None:
        _update(connection, before, state="active")
    return before


def predecessor(connection: Connection, model: Model) -> Model | None:
    """What a rollback of its run goes back to; None when it was dropped, or the model never took over."""
    rows = _select(connection, "model = %s AND state <> 'retired'", model.took_over_from)
    return rows[0] if rows else None


def may_drop(connection: Connection, model: Model) -> None:
    """Raises UsageError while something would miss its vectors: a way back beyond it, or a run that compares with it."""
    if model.run_id and model.took_over_from:
        database = ledger.get(connection, model.run_id).plan.request.database
        raise UsageError(
            f"run {model.run_id}, whose vectors would be dropped, can still be rolled back: contract it "
            f"first, {command('contract', model.run_id, database)}"
        )
    for reader in _select(connection, "planned_from = %s AND state IN ('building', 'built')", model.model):
        assert reader.run_id
        run = ledger.get(connection, reader.run_id)
        if not run.switched:
            of_run = partial(command, run_id=reader.run_id, database=run.plan.request.database)
            away = of_run("contract" if run.state == "rolled_back" else "rollback")
            raise UsageError(
                f"run {reader.run_id} compares its vectors with {model.table}.{model.column_name}, which would be "
                f"dropped: cut it over first, {of_run('cutover')}, or drop it, {away}"
            )


def retire(connection: Connection, model: Model, successor: Model) -> None:
    """Notes that the model is there no more, and that ``successor`` cannot go back to it."""
    _update(connection, model, state="retired")
    _update(connection, successor, took_over_from=None)
    connection.execute("DELETE FROM vecferry.search_function WHERE model = %s", (model.model,))


def forget(connection: Connection, model: Model) -> None:
    """Removes a model that nobody is switched to."""
    connection.execute("DELETE FROM vecferry.model WHERE model = %s", (model.model,))


def rename(connection: Connection, model: Model, column: str) -> None:
    """Notes what the column of a model is called from now on."""
    _update(connection, model, column_name=column)


def is_retired(connection: Connection, schema: str, table: str, column: str) -> bool:
    """Whether the last model that had the column, of the table or beside it, was dropped."""
    every = _select(connection, f"{_OF_TABLE} AND column_name = %s", schema, table, column)
    return [model.state for model in every][-1:] == ["retired"]


def refuse_retired(connection: Connection, run_id: str, target: int) -> None:
    """Raises UsageError when a later run has dropped what this one made."""
    model = of_run(connection, run_id, target)
    if model and model.state == "retired":
        raise UsageError(
            f"run {run_id} no longer has {model.table}.{model.column_name}: it was dropped when the run that "
            "replaced it was contracted"
        )


def ways_back(connection: Connection, schema: str, table: str) -> list[Model]:
    """The models that are active, and those that can be gone back to, the latest first."""
    known = {m.model: m for m in of_table(connection, schema, table)}
    chain = [m for m in known.values() if m.state == "active"]
    for model in chain:  # grows while it is gone through
        if (before := known.get(model.took_over_from or 0)) and before not in chain:
            chain.append(before)
    return chain


def exists(connection: Connection) -> bool:
    """Whether there is a registry: a ledger of an older version has none."""
    return connection.execute("SELECT to_regclass('vecferry.search_function') IS NOT NULL").fetchone() == (True,)


def _covered(connection: Connection, model: Model) -> str:
    top = next((m for m in ways_back(connection, model.table_schema, model.table_name) if m.run_id), None)
    if top is None or top.run_id is None:
        return f"{model.table} is not searched by the vectors of run {model.run_id}, so there is nothing to roll back"
    state = ledger.get(connection, top.run_id)
    return (
        f"run {model.run_id} lies under run {top.run_id}, whose vectors {model.table} is searched by: "
        f"roll that back first, {command('rollback', top.run_id, state.plan.request.database)}"
    )


def _select(connection: Connection, where: str, *values: object) -> list[Model]:
    if not exists(connection):
        return []
    with connection.cursor(row_factory=class_row(Model)) as cursor:
        query = sql.SQL("SELECT {} FROM vecferry.model AS m WHERE {} ORDER BY model").format(
            sql.SQL(COLUMNS), sql.SQL(where)
        )
        return cursor.execute(query, values).fetchall()


def _insert(connection: Connection, model: Model) -> Model:
    names = [field.name for field in fields(Model) if field.name != "model"]
    query = sql.SQL("INSERT INTO vecferry.model ({}) VALUES ({}) RETURNING {}").format(
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join(sql.Placeholder() * len(names)),
        sql.SQL(COLUMNS),
    )
    with connection.cursor(row_factory=class_row(Model)) as cursor:
        row = cursor.execute(query, [getattr(model, name) for name in names]).fetchone()
    assert row
    return row


def _update(connection: Connection, model: Model, **values: object) -> None:
    if "state" in values:
        values["switched_at"] = sql.SQL("now()")
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(
            sql.Identifier(name), value if isinstance(value, sql.Composable) else sql.Literal(value)
        )
        for name, value in values.items()
    )
    connection.execute(
        sql.SQL("UPDATE vecferry.model SET {} WHERE model = {}").format(assignments, sql.Literal(model.model))
    )
