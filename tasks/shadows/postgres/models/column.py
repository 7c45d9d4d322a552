"""Vectors of one model of several that a table of the application's has: a row for each chunk and model.

The tables are as the registry of models has them, and stay so: a switch makes the model the default of new searches and new
documents, and no other model's vectors are touched, neither then nor by a contract, which only ends the way back. So what the run
follows it follows for as long as people search by its model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import pyarrow as pa
from psycopg import errors, sql

from sql import statement
from tasks.base.errors import FatalError, UsageError
from tasks.base.progress import Tell, quiet
from tasks.base.words import agreeing, counted, typed
from tasks.runs import coverage, model_sets, models, registry, way_back
from tasks.runs.checkpoints import Mark
from tasks.runs.plan import Target
from tasks.runs.registry import RegisteredModel
from tasks.shadows.difference import Difference
from tasks.shadows.postgres import in_use
from tasks.shadows.postgres.live import place as live_place
from tasks.shadows.postgres.live.shadow import LiveShadow
from tasks.shadows.postgres.models import threshold as model_threshold
from tasks.shadows.postgres.models.changes import registry_changed, send_one_by_one
from tasks.shadows.postgres.models.indexes import indexes
from tasks.stores.interface import Built
from tasks.stores.postgres import pace, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.counting import count
from tasks.stores.postgres.live_table import literal
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables, every
from tasks.stores.postgres.places import SCHEMA, ModelColumn
from tasks.stores.postgres.table import Table
from tasks.stores.postgres.vectors import Vectors

PIECE_ROWS = 1_000
"""Vectors that are deleted at once."""


@dataclass(frozen=True)
class ModelColumnShadow(LiveShadow):
    """Satisfies Shadow."""

    target: Target[ModelColumn]

    @cached_property
    def tables(self) -> ModelTables:
        with self.run.connection() as connection:
            for tables in every(connection):
                if tables.set_id == self.target.place.set_id:
                    return tables
        table = f"{self.target.place.schema}.{self.target.place.table}"
        raise UsageError(
            f"{table} was put back by `vecferry models init -p rollback=true`, and run {self.run.run_id} has nothing to go on with: "
            "prepare it again, `vecferry models init`, and start a new run"
        )

    def model(self, connection: Connection) -> RegisteredModel:
        """The run's, as it is registered now. Raises UsageError where its vectors were dropped."""
        for model in registry.listed(connection, self.tables):
            if model.number == self.target.place.model:
                return model
        raise UsageError(
            f"the vectors of {self.target.place.model_name} were dropped: `vecferry models setup` makes room for them again, and a new "
            "run makes them"
        )

    def now(self, connection: Connection) -> Self:
        place, known = self.target.place, {m.number: m for m in registry.listed(connection, self.tables)}
        if new := known.get(place.model):
            own = vectors_of(self.tables, new)
            place = replace(place, own=own, new_column=own.column)
        if old := known.get(place.source):
            apart = vectors_of(self.tables, old)
            place = replace(place, live=replace(place.live, vectors=apart.column, apart=apart))
        return replace(self, target=replace(self.target, place=place))

    def refuse_retired(self, connection: Connection) -> None:
        self.model(connection)
        super().refuse_retired(connection)

    def expand(self) -> None:
        with self.run.connection() as connection:
            target = self.now(connection).target
            locked(connection, lambda: self._make(connection, target))

    def _make(self, connection: Connection, target: Target[ModelColumn]) -> None:
        models.hold(connection)
        self.model(connection)  # nothing is followed for one that is no more
        table = f"{target.place.schema}.{target.place.table}"
        live_place.make_known(connection, self.run.run_id, target, {"table": table, "model": target.place.model})
        live_place.note_changes(connection, target)

    def load(self, page: pa.Table, rejected: pa.Table | None, reloading: bool, mark: Mark) -> bool:
        with self._while_there():
            return super().load(page, rejected, reloading, mark)

    @contextmanager
    def _while_there(self) -> Iterator[None]:
        """What PostgreSQL says of a column or a table of ours that went with the model's vectors is said in plain words."""
        try:
            yield
        except (errors.UndefinedColumn, errors.UndefinedTable) as error:
            try:
                with self.run.connection() as connection:
                    self.refuse_retired(connection)
            except UsageError as gone:
                raise FatalError(str(gone)) from error
            raise

    def index(self) -> Built:
        with self.run.connection() as connection:
            model = self.model(connection)
            for _ in send_one_by_one(connection, indexes(connection, self.tables, [model])):
                pass
        return Built(index_type=model.layout.index_type)

    def table(self, connection: Connection) -> Table:
        self.refuse_retired(connection)
        shadow = self.now(connection)
        place = shadow.target.place
        return replace(place.live.by(place.vectors, place.layout, place.new_column), settled=shadow.settled())

    def dependents(self, connection: Connection) -> list[str]:
        place = self.target.place
        if not place.live.only:
            return []
        meant = sql.SQL("{} AS b").format(place.live.identifier)
        outside = sql.SQL(f"{place.live.document('b')} IS NOT NULL AND {place.live.only.sql('b')} IS NOT TRUE")
        left = count(connection, meant, outside)
        if not left:
            return []
        return [
            f"{counted(left, 'row')} of {place.schema}.{place.table} {agreeing(left, 'are')} not among the documents of this run: "
            f"migrate those too, or `vecferry models activate {typed(place.model_name)} --force` switches without them"
        ]

    def passed_over(self, connection: Connection) -> bool:
        return not any(
            m.active for m in registry.listed(connection, self.tables) if m.number == self.target.place.model
        )

    def switch(self, connection: Connection) -> None:
        model = self.model(connection)
        registry.set_active(connection, self.tables, model)
        model_threshold.give(connection, self.run.run_id, self.target, model)
        registry_changed(connection, self.tables)
        in_use.becomes(connection, self.target.place, "live")

    def take_back(self, connection: Connection, switched: bool) -> str:
        if not switched:
            followed = relations.exists(connection, self.side)
            live_place.drop_known(connection, self.target)
            if followed:
                self._count_refused(connection)
            return f"{self.target.name} is no longer followed: its triggers and its queue were dropped"
        model = self.model(connection)
        before = way_back.go_back(connection, self.tables, model)
        without = ", without the threshold that the cutover gave it"
        taken = without if model_threshold.take_off(connection, self.target, model) else ""
        registry_changed(connection, self.tables)
        in_use.becomes(connection, self.target.place, "shadow")
        return (
            f"{before.shown} is the default of {self.tables.chunks} again; the vectors of {model.shown} are kept{taken}"
        )

    def contract(self, connection: Connection) -> list[str]:
        way_back.settle(connection, self.model(connection))
        return [
            f"{registry.default(connection, self.tables).shown} stays the default of {self.tables.chunks}; no vectors were dropped"
        ]

    def notes(self) -> list[str]:
        with self.run.connection() as connection:
            model = self.model(connection)
            source = next(
                (m for m in registry.listed(connection, self.tables) if m.number == self.target.place.source), None
            )
            given = model_threshold.given(connection, self.target)
        if given is not None:
            return [f"searches by {model.shown} have that threshold now; to set it yourself: {_sets(model, given)}"]
        if model.similarity_threshold is not None:
            return []
        if (planned := self.run.plan.request.similarity_threshold) is not None:
            if model.active:
                return [
                    f"{model.shown} has no similarity threshold, and {planned:g} could not be translated; to try one: "
                    f"{_sets(model, planned)}"
                ]
            return [
                f"the cutover gives {model.shown}, which has no similarity threshold, what {planned:g} is translated into"
            ]
        if source and source.similarity_threshold is not None:
            return [
                f"{model.shown} has no similarity threshold, and {source.shown} has got {source.similarity_threshold:g} since this run "
                f"was planned; to try one: {_sets(model, source.similarity_threshold)}"
            ]
        return []

    def follow(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        with self._while_there():
            difference = super().follow(max_deleted, tell, only)
        with self.run.connection() as connection:
            self._count_refused(connection)
        return difference

    def clear(self) -> None:
        """Those vectors that this run has brought in; what others have written, before it or since, stays. Raises UsageError while the
        model is the default all the same: searches would find nothing."""
        with self.run.connection() as connection:
            if not relations.exists(connection, self.side) or not self._is_there(connection):
                return
            target = self.now(connection).target
            vectors, live = target.place.vectors, target.place.live
            one = statement(
                "contract_model_vectors",
                schema=vectors.schema,
                table=vectors.table,
                vector=sql.SQL(vectors.same("v", live.numbered("s"))),
                side=target.place.shadow,
                others=self._known_to_others(connection),
                rows=PIECE_ROWS,
            )
            deleted = 1
            while deleted:
                with pace.turn(connection), connection.transaction():
                    model_sets.stays_idle(connection, self.model(connection))
                    deleted = connection.execute(one).rowcount

    def _is_there(self, connection: Connection) -> bool:
        """Whether the model has not been dropped."""
        return any(m.number == self.target.place.model for m in registry.listed(connection, self.tables))

    def _known_to_others(self, connection: Connection) -> sql.Composable:
        """SQL: another run of the same model follows the row ``s`` too."""
        same = " AND ".join(f"o.{n} = s.{n}" for n in self.live.numbered())
        known = [
            sql.SQL("EXISTS (SELECT 1 FROM {} AS o WHERE {})").format(sql.Identifier(SCHEMA, name), sql.SQL(same))
            for name in self._followed(connection)
            if name != self.target.place.shadow
        ]
        return sql.SQL(" OR ").join(known) if known else sql.SQL("false")

    def _count_refused(self, connection: Connection) -> None:
        """Has the counters say how many rows the model refuses, by what all its runs know."""
        known = [
            sql.SQL("SELECT {} FROM {} WHERE refused IS NOT NULL").format(
                sql.SQL(", ".join(self.live.numbered())), sql.Identifier(SCHEMA, name)
            )
            for name in self._followed(connection)
        ]
        query = sql.SQL("SELECT count(*) FROM ({}) AS refused").format(sql.SQL(" UNION ").join(known))
        row = connection.execute(query).fetchone() if known else (0,)
        assert row
        coverage.set_refused(connection, self.tables, self.target.place.model, row[0])

    def _followed(self, connection: Connection) -> list[str]:
        """What the runs of the model know, a table each."""
        rows = connection.execute(
            "SELECT table_name FROM vecferry.relation WHERE table_schema = %s AND (source ->> 'model')::bigint = %s",
            (SCHEMA, self.target.place.model),
        )
        return [name for (name,) in rows]


def _sets(model: RegisteredModel, threshold: float) -> str:
    return f"vecferry models setup {typed(model.name)} -p similarity_threshold={threshold:g}"


def vectors_of(tables: ModelTables, model: RegisteredModel) -> Vectors:
    """Where a model's vectors lie."""
    if (model.place_schema, model.place_table) == (tables.chunks.schema, tables.chunks.table):
        return Vectors(model.place_schema, model.place_table, model.column, (tables.chunks.key,))
    embeddings = tables.embeddings
    number = f"{literal(model.id)}::{embeddings.model_type}"
    return Vectors(model.place_schema, model.place_table, model.column, (embeddings.chunk,), (embeddings.model, number))
