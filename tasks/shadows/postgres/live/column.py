"""Vectors of another space for a table that people go on using: in a column of it, or in a table beside it.

    place             what is made for it: column or table, queue, triggers
    rows              how rows are written, and guarded against changes meanwhile
    writing           by which statements, wherever the vectors lie
    queue             how changes are followed
    comparison        how it is held against the table
    shadow            what goes for any place of new vectors of such a table
    bystanders        what else of a row changes when it is written
    strangers         what keeps two spaces out of one column
    search_functions  how it is searched
    columns           what its columns are called by now
    renaming          how the column takes the name of the old one
    dispatcher        how it is switched, and which run may be taken back, or contracted, when
    access            who may read it
    handing_over      how an application writes it, where it lies beside the table

The queue is made before the first row is listed, so a row is right, or it is in the queue.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from sql import statement
from tasks.runs import ledger, models
from tasks.runs.commands import command
from tasks.runs.models import Model
from tasks.runs.names import index_names
from tasks.shadows.postgres import (
    column_dependents,
    column_readers,
    columns,
    dispatcher,
    generated,
    handing_over,
    in_use,
    renaming,
)
from tasks.shadows.postgres.live import place as live_place
from tasks.shadows.postgres.live.access import share, shut_out, view_name
from tasks.shadows.postgres.live.shadow import LiveShadow
from tasks.shadows.postgres.proof import Change, Proof, proofs
from tasks.shadows.postgres.strangers import refuse_strangers
from tasks.shadows.postgres.superseded import drop_superseded
from tasks.shadows.postgres.trial import call_once
from tasks.stores.interface import Built
from tasks.stores.postgres import hnsw, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.places import SCHEMA
from tasks.stores.postgres.table import Table


@dataclass(frozen=True)
class LiveColumn(LiveShadow):
    """Satisfies Shadow."""

    def expand(self) -> None:
        with self.run.connection() as connection:
            target = self.now(connection).target
            refuse_strangers(connection, self.run.run_id, target)
            locked(connection, lambda: live_place.make(connection, self.run.run_id, target))
            call_once(connection, self.run, target)

    def index(self) -> Built:
        with self.run.connection() as connection:
            return self.now(connection)._index(connection)

    def _index(self, connection: Connection) -> Built:
        self.refuse_retired(connection)
        target, name = self.target, index_names(self.run.run_id, self.target.place.table, self.target.name)["hnsw"]
        vectors, alone = target.place.vectors, target.place.in_shadow  # there nobody waits for the build
        table = Table(vectors.schema, vectors.table, target.place.layout, column=quoted(vectors.column))
        built = hnsw.build(connection, table, name, target.collection, concurrently=not alone)
        if alone:
            connection.execute(sql.SQL("ANALYZE {}").format(self.side))
        locked(connection, lambda: dispatcher.ready(connection, self.run.run_id, target))
        return built

    def table(self, connection: Connection) -> Table:
        self.refuse_retired(connection)
        target = columns.current(connection, self.target)
        live, place = target.place.live, (target.place.schema, target.place.table)
        if target.place.in_shadow:
            place = (SCHEMA, view_name(target))
        content, column = f"{live.document()}, NULL::text, NULL::text", quoted(target.place.new_column)
        return Table(*place, target.place.layout, live.id(), column, content, self.settled(), live.label)

    def dependents(self, connection: Connection) -> list[str]:
        target = self.now(connection).target
        return [
            *dispatcher.problems(connection, target),
            *renaming.problems(connection, target),
            *column_dependents.problems(connection, target),
        ]

    @property
    def stands_in(self) -> bool:
        return self.target.place.renaming is not None

    def stand_in(self, connection: Connection) -> None:
        if self.stands_in:
            dispatcher.stand_in(connection, self.run.run_id, self.now(connection).target)

    def stand_back(self, connection: Connection) -> None:
        if self.stands_in:
            dispatcher.stand_back(connection, self.now(connection).target)

    def drop_superseded(self, connection: Connection) -> None:
        drop_superseded(connection, f"{self.target.place.schema}.{self.target.place.table}")

    def switch(self, connection: Connection) -> None:
        self._switch_functions(connection)
        renaming.take_over(connection, self.now(connection).target)
        in_use.becomes(connection, self.target.place, "live")

    def _switch_functions(self, connection: Connection) -> None:
        target = self.now(connection).target
        refuse_strangers(connection, self.run.run_id, target)
        dispatcher.switch(connection, self.run.run_id, target)
        share(connection, target)

    def clear(self) -> None:
        with self.run.connection() as connection:
            if live_place.column_is_ours(connection, self.target) is False:
                if model := models.of_run(connection, self.run.run_id, self.target.number):
                    models.may_drop(connection, model)
                self.now(connection).empty_column(connection)

    def replaced(self, connection: Connection) -> list[str]:
        return dispatcher.replaced(connection, self.now(connection).target)

    def notes(self) -> list[str]:
        with self.run.connection() as connection:
            target = self.now(connection).target
            lines = [*dispatcher.notes(connection, target), *shut_out(connection, target)]
            if relations.has_column(connection, target.place.live.identifier, target.place.live.vectors):
                lines += renaming.notes(target, self.run.plan.request.embedder or "")
            return lines

    def proofs(self, connection: Connection, change: Change) -> Iterator[Proof]:
        if change == "contract":  # else it would be proven first, and refused for another reason
            self._refuse_readers(connection)
        if self.target.place.functions:
            target = self.now(connection).target
            # Columns keep their names in a rehearsal: who renames them locks the table against everybody.
            yield from proofs(connection, self.run, target, change, lambda: self._switch_functions(connection))

    def take_back(self, connection: Connection, switched: bool) -> str:
        target = self.now(connection).target
        if not switched:
            was_switched = ledger.get(connection, self.run.run_id).state == "rolled_back"
            was = "was switched back" if was_switched else "was not switched"
            dispatcher.forget(connection, self.run.run_id, target)
            live_place.drop(connection, target)
            return (
                f"{target.name} {was}; it was dropped with its triggers and queue, and the vectors "
                "that were made are kept"
            )
        model = models.of_run(connection, self.run.run_id, target.number)
        if model and model.state == "active":  # else the way back is refused
            renaming.put_back(connection, target)
            target = self.now(connection).target
        before = dispatcher.take_back(connection, self.run.run_id, target)
        in_use.becomes(connection, target.place, "shadow")
        table = f"{target.place.schema}.{target.place.table}"
        searched = (
            f"{table} is searched by {before.column_name} again" if before else f"{target.name} is no longer searched"
        )
        current = ""
        if before and before.run_id and (before.beside or before.took_over_from):  # its queue is there
            catch_up = command("catch-up", before.run_id, self.run.plan.request.database)
            current = f", which {catch_up} brings up to date"
        return f"{searched}{current}; {target.place.new_column} is kept"

    def contract(self, connection: Connection) -> list[str]:
        target = self.now(connection).target
        model = models.of_run(connection, self.run.run_id, target.number)
        assert model, f"run {self.run.run_id} has no {target.name}"
        before = models.predecessor(connection, model)
        dropped = list[str]()
        self._refuse_readers(connection)
        if not target.place.followed_after_contract:
            live_place.stop_noting(connection, target)
            live_place.drop_side_table(connection, target)
        if before:
            dispatcher.retire(connection, target, before, model)
            self._let_go(connection)
            dropped += self._drop(connection, before)
        if target.place.followed_after_contract:
            return dropped
        return [*dropped, f"dropped the triggers and the queue of {target.place.schema}.{target.place.table}"]

    def _let_go(self, connection: Connection) -> None:
        """Has what is handed over to vectors beside the table, this run's and others', no longer name what is about to be dropped."""
        for model in models.of_table(connection, self.live.schema, self.live.table):
            if model.beside and model.run_id and model.target is not None:
                target = columns.current(connection, ledger.get(connection, model.run_id).plan.targets[model.target])
                if handing_over.takes(target.place):
                    live_place.note_changes(connection, target)
                    generated.rederive_writing(connection, target, model)

    def _refuse_readers(self, connection: Connection) -> None:
        model = models.of_run(connection, self.run.run_id, self.target.number)
        before = models.predecessor(connection, model) if model else None
        if before and not before.beside:
            column_readers.refuse_readers(connection, self.now(connection).target, before.column_name)

    def _drop(self, connection: Connection, model: Model) -> list[str]:
        """The vectors that this run took over from."""
        name = f"{model.table}.{model.column_name}"
        if model.run_id and model.target is not None:
            made = ledger.get(connection, model.run_id).plan.targets[model.target]
            live_place.retire(connection, made)
            return [f"dropped {name} of run {model.run_id}"]
        if model.column_name != self.now(connection).live.vectors:
            return [f"kept {name}, which the plan of run {self.run.run_id} does not name"]
        connection.execute(
            statement("contract_column", schema=model.table_schema, table=model.table_name, column=model.column_name)
        )
        return [f"dropped {name} and its indexes"]
