"""The rows of a live table's new vectors: how pages of them are written, guarded, and taken out again. The shadow that has
these rows is in live_column.

Each write is followed by a look at what the texts are by then, with a snapshot of its own: what was overtaken is taken
out and noted again. So a row is right, or it is in the queue.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import Cursor, sql

from tasks.base.errors import TransientError
from tasks.runs.plan import Target
from tasks.shadows.postgres.bystanders import watched
from tasks.shadows.postgres.live.statements import statements_of
from tasks.shadows.postgres.shadow import PostgresShadow
from tasks.stores.interface import AT_ONCE, Turn
from tasks.stores.postgres import relations
from tasks.stores.postgres.connection import Connection, expressible
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.wire import copy_rows, key_columns, vector_array, vector_values

Which = Literal["new", "old"]
"""Vectors of the run, or those that were there before."""
PIECE_ROWS = 10
"""Rows of a live table that are updated at once: a few milliseconds where the table has an HNSW index."""


@dataclass(frozen=True)
class LiveRows(PostgresShadow):
    """A shadow as far as its rows go; ids are the rows' names, as LiveTable.id gives them."""

    target: Target[LivePlace]

    def early(self, connection: Connection, page: pa.Table, reloading: bool, turn: Turn) -> pa.Table:
        """Rows of the live table itself, all but the last few: they are locked until their transaction ends, and nobody is to
        wait long for one of them."""
        if self.target.place.in_shadow:
            return page
        last = max(0, page.num_rows - 1) // PIECE_ROWS * PIECE_ROWS
        for at in range(0, last, PIECE_ROWS):
            with self._alone(connection):
                self.write(connection, page.slice(at, PIECE_ROWS), reloading, turn)
            turn.rest()
        return page.slice(last)

    def early_old(self, connection: Connection, page: pa.Table, turn: Turn) -> pa.Table:
        """The same of old vectors: all but the last few, since rows of the live table are locked for them too."""
        last = max(0, page.num_rows - 1) // PIECE_ROWS * PIECE_ROWS
        for at in range(0, last, PIECE_ROWS):
            with connection.transaction():
                self.update_old(connection, page.slice(at, PIECE_ROWS))
            turn.rest()
        return page.slice(last)

    def write(self, connection: Connection, page: pa.Table, reloading: bool, turn: Turn) -> None:
        filled = page if not page["embedding"].null_count else page.filter(pc.is_valid(page["embedding"]))
        if reloading:  # what is written over keeps what is known of whose it is
            gone = page if statements_of(self.target.place).copies else page.filter(pc.is_null(page["embedding"]))
            self.remove(connection, gone["id"].to_pylist(), keep_column=True)
        self.put(connection, filled, fresh=True, turn=turn)

    def refuse(self, connection: Connection, rejected: pa.Table) -> None:
        """Notes rows whose text has no vector, with why, so that they are neither missing nor tried again."""
        ids = rejected["id"].to_pylist()
        self.remove(connection, ids)
        hashes = rejected["content_hash"].to_pylist()
        messages = [expressible(connection, message) for message in rejected["message"].to_pylist()]
        connection.execute(statements_of(self.target.place).refuse, (ids, hashes, messages))
        self._recheck(connection, ids, hashes)

    def put(self, connection: Connection, page: pa.Table, fresh: bool, turn: Turn = AT_ONCE) -> None:
        """Writes vectors; ``fresh`` where the side table has none of these rows."""
        if not page.num_rows:
            return
        place, statements = self.target.place, statements_of(self.target.place)
        ids, hashes = page["id"].to_pylist(), page["content_hash"].to_pylist()
        if fresh and statements.copies:
            kinds = [column.type for column in place.live.key]
            columns = [*key_columns(kinds, ids), hashes, vector_values(page, place.layout.type)]
            copy_rows(connection, statements.into, columns, turn)
        else:
            packed = vector_array(connection, page, place.layout.type)
            with nullcontext() if place.in_shadow else self._watched(connection, "new", ids, hashes):
                self._note_others(
                    connection, ids, connection.execute(statements.write, (ids, hashes, packed), prepare=False)
                )
        if not place.in_shadow:
            turn = AT_ONCE  # rows that people use are locked until the caller's transaction ends
        if not turn.gives_way:
            self._recheck(connection, ids, hashes)
            return
        turn.rest()
        for rows in turn.cut(len(hashes)):
            self._recheck(connection, ids[rows], hashes[rows])

    def update_old(self, connection: Connection, page: pa.Table) -> None:
        """The old vectors too, so that the old column can be gone back to. A text without one gets none, where the column
        allows that: no row must be found by what it said before. What lies beside the table is kept current by the run that
        made it."""
        live, vectors = self.target.place.live, self.target.place.old_vectors
        if vectors is None or not relations.has_column(connection, vectors.identifier, vectors.column):
            return
        if not relations.may_be_null(connection, vectors.identifier, vectors.column):
            page = page.filter(pc.is_valid(page["embedding"]))
        if page.num_rows:
            kind, ids = live.layout.type, page["id"].to_pylist()
            # A row without a text has a hash in a page, and none in SQL.
            texts = zip(page["document"].to_pylist(), page["content_hash"].to_pylist(), strict=True)
            hashes = [None if text is None else hashed for text, hashed in texts]
            query = statements_of(self.target.place).update_old
            with self._watched(connection, "old", ids):
                packed = vector_array(connection, page, kind)
                self._note_others(connection, ids, connection.execute(query, (ids, hashes, packed), prepare=False))

    def _note_others(self, connection: Connection, ids: Sequence[str], written: Cursor[Any]) -> None:
        """Notes rows that were passed by, where a write tells of those that were not."""
        if written.description:
            passed_by = sorted(set(ids) - {name for (name,) in written})
            if passed_by:
                connection.execute(statements_of(self.target.place).passed_by, (passed_by,))

    def remove(self, connection: Connection, ids: Sequence[str], keep_column: bool = False) -> int:
        """Forgets rows, and their vectors in the column too, unless they are written in a moment."""
        if not ids:
            return 0
        if not self.target.place.in_shadow and not keep_column:
            self._empty(connection, ids)
        return connection.execute(statements_of(self.target.place).remove, (ids,), prepare=False).rowcount

    def empty_column(self, connection: Connection) -> None:
        """Takes every vector out of the column, a few rows at a time, until a look finds none."""
        while self._emptied(connection):
            pass

    def _emptied(self, connection: Connection) -> int:
        """One pass over the table's blocks, in which rows may move; how many rows had a vector."""
        place, rows = self.target.place, 0
        row = connection.execute(
            "SELECT pg_relation_size(to_regclass(%s)) / current_setting('block_size')::int",
            (place.live.identifier.as_string(),),
        ).fetchone()
        query = sql.SQL("SELECT {} FROM {} WHERE ctid >= %s::tid AND ctid < %s::tid AND {} IS NOT NULL").format(
            sql.SQL(place.live.id()), place.live.identifier, sql.Identifier(place.new_column)
        )
        for block in range(0, row[0] if row else 0, PIECE_ROWS):
            with self.run.turn(connection) as turn:
                ids = [i for (i,) in connection.execute(query, (f"({block},0)", f"({block + PIECE_ROWS},0)"))]
                for at in range(0, len(ids), PIECE_ROWS):
                    with connection.transaction():
                        self._empty(connection, ids[at : at + PIECE_ROWS])
                    turn.rest()
                rows += len(ids)
        return rows

    def _empty(self, connection: Connection, ids: Sequence[str]) -> None:
        with self._watched(connection, "new", ids):
            connection.execute(statements_of(self.target.place).empty, (ids,), prepare=False)

    @cached_property
    def _triggers(self) -> dict[int, list[str]]:
        """The application's triggers as transactions under way have looked them up, by connection."""
        return {}

    @contextmanager
    def _alone(self, connection: Connection) -> Iterator[None]:
        """A piece in a transaction of its own. Its rows are locked for as long as that lasts, so it takes few round trips: the one
        that begins it looks up which triggers fire, and while the body runs nothing looks for them."""
        try:
            self._triggers[id(connection)] = self._begin(connection, statements_of(self.target.place).piece)
            yield
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise
        finally:
            self._triggers.pop(id(connection), None)
        connection.commit()

    def _begin(self, connection: Connection, begin: sql.Composed) -> list[str]:
        cursor = connection.execute(begin)
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row
        triggers, still = row
        if not still:
            table = self.target.collection.name
            raise TransientError(f"the columns of {table} were renamed meanwhile by the cutover of another run")
        return list(triggers)

    def _watched(
        self, connection: Connection, which: Which, ids: Sequence[str], hashes: Sequence[bytes | None] = ()
    ) -> AbstractContextManager[None]:
        """Guards a write to vectors where triggers of the application's fire on it."""
        triggers = self._triggers.get(id(connection))
        if triggers is None:
            statements = statements_of(self.target.place)
            begin = statements.begin if which == "new" else statements.begin_old
            triggers = self._begin(connection, begin)
        if not triggers:
            return nullcontext()
        column = self.target.place.new_column if which == "new" else self.target.place.live.vectors
        return watched(self.run, self.target, connection, column, triggers, ids, hashes)

    def known(self, connection: Connection, ids: list[str]) -> dict[str, bytes]:
        """Those of ``ids`` of which something is known: the hashes of their texts."""
        rows = connection.execute(statements_of(self.target.place).known, (ids,), prepare=False)
        return dict(rows.fetchall())

    def unlike(self, connection: Connection, page: pa.Table) -> list[str]:
        """The rows of a page that have another vector in the column than in the page, or none: others have written it."""
        if not page.num_rows:
            return []
        place = self.target.place
        parameters = (page["id"].to_pylist(), vector_array(connection, page, place.layout.type))
        return [n for (n,) in connection.execute(statements_of(place).unlike, parameters, prepare=False)]

    def truncated(self, connection: Connection) -> None:
        """Forgets rows that are there no longer."""
        connection.execute(statements_of(self.target.place).truncated)

    def _recheck(self, connection: Connection, ids: list[str], hashes: list[bytes]) -> None:
        """Takes out what was overtaken while it was embedded or written, and notes it again."""
        statements = statements_of(self.target.place)
        overtaken = [name for (name,) in connection.execute(statements.overtaken, (ids, hashes), prepare=False)]
        if overtaken:
            self.remove(connection, overtaken)
            connection.execute(statements.note, (overtaken,))
