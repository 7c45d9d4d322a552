"""The rows of a live table's new vectors: how pages of them are written, guarded, and taken out again.

Each write is followed by a look at what the texts are by then, with a snapshot of its own: what was overtaken is taken
out and noted again. So a row is right, or it is in the queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from tasks.runs.plan import Target
from tasks.shadows.postgres.live_place import numbered_id, queue, side_table
from tasks.stores.interface import vectors
from tasks.stores.postgres import pgvector, wire
from tasks.stores.postgres.connection import Connection, Packed
from tasks.stores.postgres.live_table import LiveTable, has_column, quoted
from tasks.stores.postgres.pace import AT_ONCE, Turn
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.wire import KEYS, copy_rows, key_values, vector_values


@dataclass(frozen=True)
class LiveRows:
    """What writes to one target; ids are the rows' names, as LiveTable.id gives them."""

    target: Target[LivePlace]

    @property
    def live(self) -> LiveTable:
        return self.target.place.live

    def write(self, connection: Connection, page: pa.Table, reloading: bool, turn: Turn = AT_ONCE) -> None:
        """Puts in what of a page has a vector; ``reloading`` when some of its rows may be there."""
        filled = page if not page["embedding"].null_count else page.filter(pc.is_valid(page["embedding"]))
        if reloading:
            self.remove(connection, page["id"].to_pylist(), keep_column=True)
        self.put(connection, filled, fresh=True, turn=turn)

    def refuse(self, connection: Connection, rejected: pa.Table) -> None:
        """Notes rows whose text has no vector, with why, so that they are neither missing nor tried again."""
        ids = rejected["id"].to_pylist()
        self.remove(connection, ids)
        query = sql.SQL("INSERT INTO {} ({}, content_hash, refused) SELECT p.* FROM {}").format(
            side_table(self.target),
            sql.SQL(", ".join(self.live.numbered())),
            sql.SQL(self._page("content_hash bytea", "refused text")),
        )
        hashes, messages = rejected["content_hash"].to_pylist(), rejected["message"].to_pylist()
        connection.execute(query, (*self.live.keys(ids), hashes, messages))
        self.recheck(connection, ids, hashes)

    def put(self, connection: Connection, page: pa.Table, fresh: bool, turn: Turn = AT_ONCE) -> None:
        """Writes vectors; ``fresh`` where the side table has none of these rows."""
        if not page.num_rows:
            return
        ids, hashes = page["id"].to_pylist(), page["content_hash"].to_pylist()
        if not self.target.place.beside:
            turn = AT_ONCE  # rows of the live table are locked until the caller's transaction ends
            self._update(connection, page, ids, hashes)
        elif fresh and all(column.type in KEYS for column in self.live.key):
            self._copy(connection, page, ids, hashes, turn)
        else:
            self._upsert(connection, page, ids, hashes)
        turn.rest()
        for rows in turn.cut(len(ids)):
            self.recheck(connection, ids[rows], hashes[rows])

    def _copy(self, connection: Connection, page: pa.Table, ids: list[str], hashes: list[bytes], turn: Turn) -> None:
        into = sql.SQL("{} ({}, content_hash, embedding)").format(
            side_table(self.target), sql.SQL(", ".join(self.live.numbered()))
        )
        parts = zip(self.live.keys(ids), self.live.key, strict=True)
        keys = [key_values(column.type, part) for part, column in parts]
        copy_rows(connection, into, [*keys, hashes, vector_values(page, self.target.place.layout.type)], turn)

    def _upsert(self, connection: Connection, page: pa.Table, ids: list[str], hashes: list[bytes]) -> None:
        numbered = ", ".join(self.live.numbered())
        query = sql.SQL(
            "INSERT INTO {side} AS held ({keys}, content_hash, embedding) SELECT {keys}, content_hash, embedding FROM {page} "
            "ORDER BY {keys} ON CONFLICT ({keys}) DO UPDATE SET content_hash = excluded.content_hash, "
            "refused = NULL, embedding = excluded.embedding"
        ).format(
            side=side_table(self.target),
            keys=sql.SQL(numbered),
            page=sql.SQL(self._page("content_hash bytea", f"embedding {self.target.place.layout.type}")),
        )
        connection.execute(
            query,
            (*self.live.keys(ids), hashes, _packed(connection, page, self.target.place.layout.type)),
            prepare=False,
        )

    def _update(self, connection: Connection, page: pa.Table, ids: list[str], hashes: list[bytes]) -> None:
        """The column, where the text is still the one that was embedded; then what is known of these rows."""
        query = sql.SQL(
            "WITH written AS ({fill} RETURNING {keys}, p.content_hash) "
            "INSERT INTO {side} ({numbered}, content_hash) SELECT * FROM written ORDER BY {numbered} "
            "ON CONFLICT ({numbered}) DO UPDATE SET content_hash = excluded.content_hash, refused = NULL"
        ).format(
            fill=self._fill(self.target.place.new_column, self.target.place.layout.type),
            keys=sql.SQL(", ".join(self.live.numbered("p"))),
            side=side_table(self.target),
            numbered=sql.SQL(", ".join(self.live.numbered())),
        )
        packed = _packed(connection, page, self.target.place.layout.type)
        connection.execute(query, (*self.live.keys(ids), hashes, packed), prepare=False)

    def update_old(self, connection: Connection, page: pa.Table) -> None:
        """The old vectors too, so that the old column can be gone back to. A text without one gets none, where the column
        allows that: no row must be found by what it said before. What lies beside the table is kept current by the run that
        made it."""
        if not has_column(connection, self.live, self.live.vectors):
            return
        if not self._may_lack_old(connection):
            page = page.filter(pc.is_valid(page["embedding"]))
        if page.num_rows:
            kind, keys = self.live.layout.type, self.live.keys(page["id"].to_pylist())
            # A row without a text has a hash in a page, and none in SQL.
            filled = zip(page["document"].to_pylist(), page["content_hash"].to_pylist(), strict=True)
            hashes = [None if text is None else hashed for text, hashed in filled]
            query = self._fill(self.live.vectors, kind)
            connection.execute(query, (*keys, hashes, _packed(connection, page, kind)), prepare=False)

    def _may_lack_old(self, connection: Connection) -> bool:
        row = connection.execute(
            "SELECT NOT attnotnull FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s",
            (self.live.identifier.as_string(), self.live.vectors),
        ).fetchone()
        return row == (True,)

    def _fill(self, column: str, kind: pgvector.VectorType) -> sql.Composed:
        """Sets a column of the live table from a page, where the text is still the one that was embedded."""
        return sql.SQL(
            "UPDATE {live} AS b SET {column} = p.embedding FROM {page} WHERE {same} "
            "AND {hash} IS NOT DISTINCT FROM p.content_hash"
        ).format(
            live=self.live.identifier,
            column=sql.Identifier(column),
            page=sql.SQL(self._page("content_hash bytea", f"embedding {kind}")),
            same=sql.SQL(self.live.same("p", "b")),
            hash=sql.SQL(self.live.hash("b")),
        )

    def recheck(self, connection: Connection, ids: list[str], hashes: list[bytes]) -> None:
        """Takes out what was overtaken while it was embedded or written, and notes it again."""
        query = sql.SQL(
            "SELECT {id} FROM {page} LEFT JOIN {live} AS b ON {same} WHERE {hash} IS DISTINCT FROM p.content_hash"
        ).format(
            id=sql.SQL(numbered_id(self.target, "p")),
            page=sql.SQL(self._page("content_hash bytea")),
            live=self.live.identifier,
            same=sql.SQL(self.live.same("p", "b")),
            hash=sql.SQL(self.live.hash("b")),
        )
        overtaken = [name for (name,) in connection.execute(query, (*self.live.keys(ids), hashes), prepare=False)]
        if overtaken:
            self.remove(connection, overtaken)
            connection.execute(
                sql.SQL("INSERT INTO {} (id) SELECT unnest(%s::text[])").format(queue(self.target)), (overtaken,)
            )

    def remove(self, connection: Connection, ids: Sequence[str], keep_column: bool = False) -> int:
        """Forgets rows, and their vectors in the column too, unless they are written in a moment."""
        if not ids:
            return 0
        keys = self.live.keys(ids)
        numbered = sql.SQL(" AND ".join(f"s.{n} = p.{n}" for n in self.live.numbered()))
        query = sql.SQL("DELETE FROM {} AS s USING {} WHERE {}").format(
            side_table(self.target), sql.SQL(self._page()), numbered
        )
        removed = connection.execute(query, keys, prepare=False).rowcount
        if not self.target.place.beside and not keep_column:
            query = sql.SQL("UPDATE {} AS b SET {} = NULL FROM {} WHERE {} AND {} IS NOT NULL").format(
                self.live.identifier,
                sql.Identifier(self.target.place.new_column),
                sql.SQL(self._page()),
                sql.SQL(self.live.same("p", "b")),
                sql.SQL(f"b.{quoted(self.target.place.new_column)}"),
            )
            connection.execute(query, keys, prepare=False)
        return removed

    def held(self, connection: Connection, ids: list[str]) -> set[str]:
        query = sql.SQL("SELECT {} FROM {} JOIN {} AS s USING ({})").format(
            sql.SQL(numbered_id(self.target, "s")),
            sql.SQL(self._page()),
            side_table(self.target),
            sql.SQL(", ".join(self.live.numbered())),
        )
        return {name for (name,) in connection.execute(query, self.live.keys(ids), prepare=False)}

    def truncated(self, connection: Connection) -> None:
        connection.execute(
            sql.SQL("DELETE FROM {} AS s WHERE NOT EXISTS (SELECT 1 FROM {} AS b WHERE {})").format(
                side_table(self.target), self.live.identifier, sql.SQL(self.live.same("s", "b"))
            )
        )

    def _page(self, *more: str) -> str:
        """SQL of a page that travels as arrays: the key columns, then ``more`` (name and type)."""
        arrays = [f"%b::text[]::{column.type}[]" for column in self.live.key]
        names = self.live.numbered()
        for column in more:
            name, kind = column.split()
            arrays.append(f"%b::{kind}[]")
            names = [*names, name]
        return f"unnest({', '.join(arrays)}) AS p ({', '.join(names)})"


def _packed(connection: Connection, page: pa.Table, kind: pgvector.VectorType) -> Packed:
    present = np.asarray(page.column("embedding").is_valid())
    return Packed(wire.pack_array(vectors(page), present, kind, connection.adapters.types[kind].oid))
