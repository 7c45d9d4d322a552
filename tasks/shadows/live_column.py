"""Vectors of another space for a table that people go on using: in a column of it, or in a table beside it.

What is known of each row stands in a table of ours, the side table: its key, the hash of the text that was embedded,
and, in the layout side_table, the vector. Triggers note every row that changes in a queue, which is made before the first
row is listed. Each write is followed by a look at what the texts are by then, with a snapshot of its own: what was
overtaken is taken out and noted again. So a row is right, or it is in the queue.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from sql import statement
from tasks import hnsw, ledger, quarantine
from tasks.artifacts import Tell, quiet
from tasks.difference import Difference, Named, named
from tasks.errors import UsageError, VerificationRefused
from tasks.locking import locked
from tasks.plan import SCHEMA, ColumnsRequest, ColumnTarget, short
from tasks.run import Run
from tasks.shadows import search_functions
from tasks.shadows.interface import Switched
from tasks.stores import pgvector
from tasks.stores.connection import Connection, Packed
from tasks.stores.interface import vectors
from tasks.stores.live_table import LiveTable, quoted
from tasks.stores.postgres import READ_ROWS, Table
from tasks.vectors import embedded

BINARY: dict[str, tuple[str, Any]] = {
    "smallint": ("int2", int),
    "integer": ("int4", int),
    "bigint": ("int8", int),
    "uuid": ("uuid", UUID),
    "text": ("text", str),
}
"""Key types that go into a binary COPY: what psycopg calls them, and what makes one of its text."""


@dataclass(frozen=True)
class LiveColumn:
    """Satisfies Shadow."""

    run: Run
    target: ColumnTarget

    @property
    def live(self) -> LiveTable:
        return self.target.live

    @property
    def side(self) -> sql.Identifier:
        return sql.Identifier(SCHEMA, self.target.shadow)

    @property
    def queue(self) -> sql.Identifier:
        return sql.Identifier(SCHEMA, queue_name(self.target))

    # ── expand ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def expand(self, connection: Connection) -> None:
        refuse_strangers(connection, self.run.run_id, self.target)
        locked(connection, lambda: self._make(connection))

    def _make(self, connection: Connection) -> None:
        target, live = self.target, self.live
        connection.execute(
            "INSERT INTO vecferry.relation (table_schema, table_name, run_id, target, role, source, space) "
            "VALUES (%s, %s, %s, %s, 'shadow', "
            "jsonb_build_object('table', %s::text, 'column', %s::text, 'column_is_ours', %s::boolean), %s) ON CONFLICT DO NOTHING",
            (
                SCHEMA,
                target.shadow,
                self.run.run_id,
                target.number,
                f"{target.schema}.{target.table}",
                target.new_column,
                not _has_column(connection, target),
                target.space,
            ),
        )
        keys = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.Identifier(c.name), sql.SQL(n))
            for c, n in zip(live.key, live.numbered(), strict=True)
        )
        where: dict[str, Any] = {"schema": target.schema, "table": target.table}
        dims: dict[str, Any] = {"type": target.type, "dims": target.dimensions or 0}
        connection.execute(statement("expand_side_table", side=target.shadow, keys=keys, **where, **dims))
        name = hnsw.index_names(self.run.run_id, target)["key"]
        if name not in hnsw.existing(connection, Table(SCHEMA, target.shadow, target.layout)):
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ({})").format(
                    self.side, sql.Identifier(name), sql.SQL(", ".join(live.numbered()))
                )
            )
        if not target.beside:
            connection.execute(sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS embedding").format(self.side))
            if not _has_column(connection, target):
                connection.execute(statement("expand_column", column=target.new_column, **where, **dims))
        connection.execute(statement("expand_note_change"))
        connection.execute(
            statement(
                "expand_queue",
                queue=queue_name(target),
                key=live.id("($1)"),
                changed=sql.SQL(self._changed()),
                **{f"trigger_{kind}": trigger_name(target, kind) for kind in ("write", "update", "truncate")},
                **where,
            )
        )
        if target.beside:
            search_functions.make_view(connection, target)

    def _changed(self) -> str:
        pairs = [(self.live.said("OLD"), self.live.said("NEW")), (self.live.id("OLD"), self.live.id("NEW"))]
        return " OR ".join(f"{old} IS DISTINCT FROM {new}" for old, new in pairs)

    # ── write ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, connection: Connection, page: pa.Table, again: bool) -> None:
        said = page.filter(pc.is_valid(page["embedding"]))
        if again:
            self._remove(connection, page["id"].to_pylist(), keep_column=True)
        self._put(connection, said, fresh=True)

    def refuse(self, connection: Connection, rejected: pa.Table) -> None:
        """Notes rows whose text has no vector, with why, so that they are neither missing nor tried again."""
        ids = rejected["id"].to_pylist()
        self._remove(connection, ids)
        query = sql.SQL("INSERT INTO {} ({}, content_hash, refused) SELECT p.* FROM {}").format(
            self.side,
            sql.SQL(", ".join(self.live.numbered())),
            sql.SQL(self._page("content_hash bytea", "refused text")),
        )
        hashes, messages = rejected["content_hash"].to_pylist(), rejected["message"].to_pylist()
        connection.execute(query, (*self.live.keys(ids), hashes, messages))
        self._recheck(connection, ids, hashes)

    def _put(self, connection: Connection, page: pa.Table, fresh: bool) -> None:
        """Writes vectors; ``fresh`` where the side table has none of these rows."""
        if not page.num_rows:
            return
        ids, hashes = page["id"].to_pylist(), page["content_hash"].to_pylist()
        if not self.target.beside:
            self._update(connection, page, ids, hashes)
        elif fresh and all(column.type in BINARY for column in self.live.key):
            self._copy(connection, page, ids, hashes)
        else:
            self._upsert(connection, page, ids, hashes)
        self._recheck(connection, ids, hashes)

    def _copy(self, connection: Connection, page: pa.Table, ids: list[str], hashes: list[bytes]) -> None:
        kinds = [BINARY[column.type] for column in self.live.key]
        keys = [list(map(make, part)) for part, (_, make) in zip(self.live.keys(ids), kinds, strict=True)]
        packed = pgvector.pack(vectors(page), self.target.type)
        command = sql.SQL("COPY {} ({}, content_hash, embedding) FROM STDIN (FORMAT BINARY)").format(
            self.side, sql.SQL(", ".join(self.live.numbered()))
        )
        with connection.cursor() as cursor, cursor.copy(command) as copy:
            copy.set_types([*(name for name, _ in kinds), "bytea", self.target.type])
            for row in zip(*keys, hashes, packed, strict=True):
                copy.write_row(row)

    def _upsert(self, connection: Connection, page: pa.Table, ids: list[str], hashes: list[bytes]) -> None:
        numbered = ", ".join(self.live.numbered())
        query = sql.SQL(
            "INSERT INTO {side} AS held ({keys}, content_hash, embedding) SELECT {keys}, content_hash, embedding FROM {page} "
            "ORDER BY {keys} ON CONFLICT ({keys}) DO UPDATE SET content_hash = excluded.content_hash, "
            "refused = NULL, embedding = excluded.embedding"
        ).format(
            side=self.side,
            keys=sql.SQL(numbered),
            page=sql.SQL(self._page("content_hash bytea", f"embedding {self.target.type}")),
        )
        connection.execute(
            query, (*self.live.keys(ids), hashes, _packed(connection, page, self.target.type)), prepare=False
        )

    def _update(self, connection: Connection, page: pa.Table, ids: list[str], hashes: list[bytes]) -> None:
        """The column, where the text is still the one that was embedded; then what is known of these rows."""
        query = sql.SQL(
            "WITH written AS ({fill} RETURNING {keys}, p.content_hash) "
            "INSERT INTO {side} ({numbered}, content_hash) SELECT * FROM written ORDER BY {numbered} "
            "ON CONFLICT ({numbered}) DO UPDATE SET content_hash = excluded.content_hash, refused = NULL"
        ).format(
            fill=self._fill(self.target.new_column, self.target.type),
            keys=sql.SQL(", ".join(self.live.numbered("p"))),
            side=self.side,
            numbered=sql.SQL(", ".join(self.live.numbered())),
        )
        packed = _packed(connection, page, self.target.type)
        connection.execute(query, (*self.live.keys(ids), hashes, packed), prepare=False)

    def _update_old(self, connection: Connection, page: pa.Table) -> None:
        """The old vectors too, so that the old column can be gone back to."""
        if page.num_rows:
            kind = self.live.layout.type
            keys, hashes = self.live.keys(page["id"].to_pylist()), page["content_hash"].to_pylist()
            query = self._fill(self.live.vectors, kind)
            connection.execute(query, (*keys, hashes, _packed(connection, page, kind)), prepare=False)

    def _fill(self, column: str, kind: pgvector.VectorType) -> sql.Composed:
        """Sets a column of the live table from a page, where the text is still the one that was embedded."""
        return sql.SQL(
            "UPDATE {live} AS b SET {column} = p.embedding FROM {page} WHERE {same} AND {hash} = p.content_hash"
        ).format(
            live=self.live.identifier,
            column=sql.Identifier(column),
            page=sql.SQL(self._page("content_hash bytea", f"embedding {kind}")),
            same=sql.SQL(self.live.same("p", "b")),
            hash=sql.SQL(self.live.hash("b")),
        )

    def _recheck(self, connection: Connection, ids: list[str], hashes: list[bytes]) -> None:
        """Takes out what was overtaken while it was embedded or written, and notes it again."""
        query = sql.SQL(
            "SELECT {id} FROM {page} LEFT JOIN {live} AS b ON {same} WHERE {hash} IS DISTINCT FROM p.content_hash"
        ).format(
            id=sql.SQL(self._numbered_id("p")),
            page=sql.SQL(self._page("content_hash bytea")),
            live=self.live.identifier,
            same=sql.SQL(self.live.same("p", "b")),
            hash=sql.SQL(self.live.hash("b")),
        )
        overtaken = [name for (name,) in connection.execute(query, (*self.live.keys(ids), hashes), prepare=False)]
        if overtaken:
            self._remove(connection, overtaken)
            connection.execute(
                sql.SQL("INSERT INTO {} (id) SELECT unnest(%s::text[])").format(self.queue), (overtaken,)
            )

    def _remove(self, connection: Connection, ids: Sequence[str], keep_column: bool = False) -> int:
        """Forgets rows, and their vectors in the column too, unless they are written in a moment."""
        if not ids:
            return 0
        keys = self.live.keys(ids)
        numbered = sql.SQL(" AND ".join(f"s.{n} = p.{n}" for n in self.live.numbered()))
        query = sql.SQL("DELETE FROM {} AS s USING {} WHERE {}").format(self.side, sql.SQL(self._page()), numbered)
        removed = connection.execute(query, keys, prepare=False).rowcount
        if not self.target.beside and not keep_column:
            query = sql.SQL("UPDATE {} AS b SET {} = NULL FROM {} WHERE {} AND {} IS NOT NULL").format(
                self.live.identifier,
                sql.Identifier(self.target.new_column),
                sql.SQL(self._page()),
                sql.SQL(self.live.same("p", "b")),
                sql.SQL(f"b.{quoted(self.target.new_column)}"),
            )
            connection.execute(query, keys, prepare=False)
        return removed

    def _page(self, *more: str) -> str:
        """SQL of a page that travels as arrays: the key columns, then ``more`` (name and type)."""
        arrays = [f"%b::text[]::{column.type}[]" for column in self.live.key]
        names = self.live.numbered()
        for column in more:
            name, kind = column.split()
            arrays.append(f"%b::{kind}[]")
            names = [*names, name]
        return f"unnest({', '.join(arrays)}) AS p ({', '.join(names)})"

    def _numbered_id(self, alias: str) -> str:
        parts = [f"{n}::text" for n in self.live.numbered(alias)]
        return parts[0] if len(parts) == 1 else f"jsonb_build_array({', '.join(parts)})::text"

    # ── key, index, where it is searched ────────────────────────────────────────────────────────────────────────────

    def key(self, connection: Connection) -> bool:
        return False  # it is there from the start

    def index(self, connection: Connection) -> dict[str, Any]:
        target, name = self.target, hnsw.index_names(self.run.run_id, self.target)["hnsw"]
        if target.beside:
            how = hnsw.build(connection, Table(SCHEMA, target.shadow, target.layout), name, target.collection)
            connection.execute(sql.SQL("ANALYZE {}").format(self.side))
        else:
            how = hnsw.build(connection, self.table(connection), name, target.collection, concurrently=True)
        locked(connection, lambda: search_functions.make_v2(connection, target))
        return how

    def table(self, connection: Connection) -> Table:
        target, live = self.target, self.live
        place = (SCHEMA, search_functions.view_name(target)) if target.beside else (target.schema, target.table)
        if connection.execute("SELECT to_regclass(%s)", (self.side.as_string(),)).fetchone() == (None,):
            raise UsageError(
                f"run {self.run.run_id} has nothing of {target.name} any more: run it again, or see `vecferry status`"
            )
        said = f"{live.said()}, NULL::text, NULL::text"
        # A row that waits in the queue may say something else by now than its vector does.
        waiting = f"SELECT q.id FROM {self.queue.as_string()} AS q WHERE q.id IS NOT NULL"
        settled = f"{live.said()} IS NOT NULL AND {live.id()} NOT IN ({waiting})"
        return Table(*place, target.layout, live.id(), quoted(target.new_column), said, settled)

    # ── catch up, compare ───────────────────────────────────────────────────────────────────────────────────────────

    def bring(self, max_deleted: float, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """What the queue holds now, and not what comes to it meanwhile: under steady writes a pass ends too."""
        if only is not None:
            with self.run.connection() as connection:
                return self._again(connection, only, [])
        with self.run.connection() as connection:
            row = connection.execute(
                sql.SQL("SELECT count(*), coalesce(max(seq), 0) FROM {}").format(self.queue)
            ).fetchone()
        assert row
        total, last = row
        if not total:
            return Difference()
        workers = min(WORKERS, -(-total // READ_ROWS))
        with ThreadPoolExecutor(workers, "catch-up") as pool:
            shares = [pool.submit(self._drain, worker, workers, last) for worker in range(workers)]
            found = sum((share.result() for share in shares), Difference())
        if self.target.beside:
            self._tidy(found.touched)
        return found

    def _tidy(self, replaced: int) -> None:
        """A search passes over what was replaced until it is vacuumed, and finds less for it."""
        with self.run.connection() as connection:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(self.side)).fetchone()
            if row and replaced > DEAD * row[0]:
                connection.execute(sql.SQL("VACUUM {}").format(self.side))

    def _drain(self, worker: int, workers: int, last: int) -> Difference:
        """The part of one worker: a row's changes all fall to the same, so that no two write it at once."""
        found = Difference()
        with self.run.connection() as connection:
            while True:
                rows = connection.execute(
                    sql.SQL(
                        "SELECT seq, id FROM {} WHERE seq <= %s AND (id IS NULL OR abs(hashtext(id)::bigint) %% %s = %s) "
                        "ORDER BY seq LIMIT {}"
                    ).format(self.queue, sql.Literal(READ_ROWS)),
                    (last, workers, worker),
                ).fetchall()
                if not rows:
                    return found
                ids = list(dict.fromkeys(name for _, name in rows if name is not None))
                if any(name is None for _, name in rows):
                    self._truncated(connection)
                found += self._again(connection, ids, [seq for seq, _ in rows])

    def _again(self, connection: Connection, ids: list[str], seqs: list[int]) -> Difference:
        """Brings these rows in line and takes exactly these entries off the queue."""
        from tasks.stores.postgres import with_hash

        fetched = with_hash(pa.Table.from_batches([self.run.source().fetch(self.target.collection.name, ids)]))
        page, refused = embedded(self.run, self.target, fetched)
        page, rejected = quarantine.sift(connection, page, self.target.layout, "quarantine", refused)
        said = page.filter(pc.is_valid(page["embedding"]))
        old = self._of_old_model(connection, fetched)
        with connection.transaction():
            ledger.check_stop(connection, self.run.run_id)
            there = self._held(connection, ids)
            silent = sorted(set(ids) - set(said["id"].to_pylist()))
            removed = self._remove(connection, silent)
            self._put(connection, said, fresh=False)
            if old is not None:
                self._update_old(connection, old)
            if rejected:
                self.refuse(connection, rejected)
            connection.execute(sql.SQL("DELETE FROM {} WHERE seq = ANY(%s)").format(self.queue), (seqs,))
        written = said["id"].to_pylist()
        return Difference(
            missing=named([i for i in written if i not in there]),
            stale=named([i for i in written if i in there]),
            orphaned=Named(removed),
            quarantined=named(rejected["id"].to_pylist()) if rejected else Named(),
        )

    def _of_old_model(self, connection: Connection, fetched: pa.Table) -> pa.Table | None:
        """The page with old vectors made anew, once the application has moved on and makes none itself; None before, or
        where the old model is not named."""
        request = self.run.plan.request
        assert isinstance(request, ColumnsRequest)
        if request.old_embedder is None or ledger.get(connection, self.run.run_id).state != "cut_over":
            return None
        page, _ = embedded(self.run, self.target, fetched, model=request.old_embedder)
        return page.filter(pc.is_valid(page["embedding"]))

    def _held(self, connection: Connection, ids: list[str]) -> set[str]:
        query = sql.SQL("SELECT {} FROM {} JOIN {} AS s USING ({})").format(
            sql.SQL(self._numbered_id("s")), sql.SQL(self._page()), self.side, sql.SQL(", ".join(self.live.numbered()))
        )
        return {name for (name,) in connection.execute(query, self.live.keys(ids), prepare=False)}

    def _truncated(self, connection: Connection) -> None:
        connection.execute(
            sql.SQL("DELETE FROM {} AS s WHERE NOT EXISTS (SELECT 1 FROM {} AS b WHERE {})").format(
                self.side, self.live.identifier, sql.SQL(self.live.same("s", "b"))
            )
        )

    def compare(self, tell: Tell = quiet, only: list[str] | None = None) -> Difference:
        """In one statement, and so of one moment: every row is right, or in the queue, or told here."""
        target, live = self.target, self.live
        vector = "s.embedding" if target.beside else f"b.{quoted(target.new_column)}"
        limited = self.run.plan.limited
        query = sql.SQL(
            "WITH looked AS (SELECT coalesce({live_id}, {side_id}) AS id, CASE "
            "  WHEN b.{first} IS NULL THEN 'orphaned' WHEN {said} IS NULL THEN "
            "    CASE WHEN s.k1 IS NOT NULL THEN 'orphaned' WHEN {vector} IS NULL THEN 'silent' ELSE 'added' END "
            "  WHEN s.k1 IS NULL THEN CASE WHEN {vector} IS NULL THEN 'missing' ELSE 'added' END "
            "  WHEN s.content_hash <> {hash} THEN 'stale' WHEN s.refused IS NOT NULL THEN 'quarantined' "
            "  WHEN {vector} IS NULL THEN 'missing' ELSE 'right' END AS how "
            "FROM {live} AS b FULL JOIN {side} AS s ON {same}), "
            "waiting AS (SELECT DISTINCT id FROM {queue}), "
            "told AS (SELECT how, id FROM looked WHERE how NOT IN ('right', 'silent') "
            "  AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.id = looked.id OR w.id IS NULL)) "
            "SELECT how, count(*), (array_agg(id ORDER BY id))[1:1000] FROM told GROUP BY how "
            "UNION ALL SELECT 'compared', count(*), NULL FROM looked WHERE how <> 'silent' AND (how <> 'missing' OR NOT {limited})"
        ).format(
            live_id=sql.SQL(live.id("b")),
            side_id=sql.SQL(self._numbered_id("s")),
            first=sql.Identifier(live.key[0].name),
            said=sql.SQL(live.said("b")),
            hash=sql.SQL(live.hash("b")),
            vector=sql.SQL(vector),
            live=live.identifier,
            side=self.side,
            same=sql.SQL(live.same("s", "b")),
            queue=self.queue,
            limited=sql.Literal(limited),
        )
        with self.run.connection() as connection:
            found = {how: (count, tuple(ids or ())) for how, count, ids in connection.execute(query)}
        chosen = set(only) if only is not None else None

        def told(how: str) -> Named:
            count, ids = found.get(how, (0, ()))
            if chosen is None:
                return Named(count, ids)
            return named([i for i in ids if i in chosen])

        missing = Named() if limited else told("missing")
        return Difference(
            compared=found["compared"][0],
            missing=missing,
            stale=told("stale"),
            orphaned=told("orphaned"),
            added=told("added"),
            quarantined=told("quarantined"),
        )

    def brought(self, connection: Connection, passes: Difference) -> Difference:
        return passes

    # ── switch ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def dependents(self, connection: Connection) -> list[str]:
        return search_functions.problems(connection, self.target)

    def switch(self, connection: Connection) -> Switched:
        refuse_strangers(connection, self.run.run_id, self.target)
        search_functions.switch(connection, self.run.run_id, self.target)
        connection.execute(
            "UPDATE vecferry.relation SET role = 'live' WHERE table_schema = %s AND table_name = %s",
            (SCHEMA, self.target.shadow),
        )
        row = connection.execute(sql.SQL("SELECT count(*) FROM {} WHERE refused IS NULL").format(self.side)).fetchone()
        assert row
        return Switched(self.target.name, row[0], f"{self.target.schema}.{self.target.table}.{self.live.vectors}")

    def take_back(self, connection: Connection, switched: bool) -> str:
        target = self.target
        if switched:
            search_functions.switch_back(connection, target)
            connection.execute(
                "UPDATE vecferry.relation SET role = 'shadow' WHERE table_schema = %s AND table_name = %s",
                (SCHEMA, target.shadow),
            )
            return (
                f"{target.schema}.{target.table} is searched by {self.live.vectors} again; {target.new_column} is kept"
            )
        search_functions.drop(connection, target)
        self._drop_triggers(connection)
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self.side))
        ours = connection.execute(
            "DELETE FROM vecferry.relation WHERE table_schema = %s AND table_name = %s RETURNING source -> 'column_is_ours'",
            (SCHEMA, target.shadow),
        ).fetchone()
        if not target.beside:
            connection.execute(
                sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                    self.live.identifier, sql.Identifier(target.new_column)
                )
            )
            if ours and not ours[0]:  # it was there before the run, and empty
                connection.execute(
                    statement(
                        "expand_column",
                        schema=target.schema,
                        table=target.table,
                        column=target.new_column,
                        type=target.type,
                        dims=target.dimensions or 0,
                    )
                )
        return f"{target.name} was not switched yet; it was dropped with its trigger and queue, the vectors are kept"

    def contract(self, connection: Connection) -> list[str]:
        target, live = self.target, self.live
        search_functions.contract(connection, target)
        connection.execute(
            sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(live.identifier, sql.Identifier(live.vectors))
        )
        dropped = [f"dropped {target.schema}.{target.table}.{live.vectors} and its indexes"]
        if target.beside:
            return dropped  # the table beside is kept current from its queue, or it would not be at all
        self._drop_triggers(connection)
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self.side))
        return [*dropped, f"dropped the triggers and the queue of {target.schema}.{target.table}"]

    def _drop_triggers(self, connection: Connection) -> None:
        for kind in ("write", "update", "truncate"):
            name = sql.Identifier(trigger_name(self.target, kind))
            connection.execute(sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(name, self.live.identifier))
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self.queue))


WORKERS = 2
DEAD = 0.2
"""Share of replaced rows from which the side table is vacuumed: autovacuum's own, which comes a minute later."""


def _packed(connection: Connection, page: pa.Table, kind: pgvector.VectorType) -> Packed:
    present = np.ones(page.num_rows, bool)
    return Packed(pgvector.pack_array(vectors(page), present, kind, connection.adapters.types[kind].oid))


def queue_name(target: ColumnTarget) -> str:
    """The queue of rows of this target that changed."""
    return f"{short(target.shadow, 57)}_queue"


def trigger_name(target: ColumnTarget, kind: str) -> str:
    """A trigger of this target's on the live table."""
    return f"vecferry_{short(target.shadow, 44)}_{kind}"


def refuse_strangers(connection: Connection, run_id: str, target: ColumnTarget) -> None:
    """Raises VerificationRefused when the new column holds, or may come to hold, vectors that this run did not write."""
    for row in strangers(connection, run_id, target):
        raise VerificationRefused(row)


def strangers(connection: Connection, run_id: str, target: ColumnTarget) -> Iterator[str]:
    """What is in the way of a column that holds this run's vectors and no others."""
    if ledger.exists(connection):
        others = connection.execute(
            "SELECT run_id FROM vecferry.relation WHERE run_id <> %s AND source ->> 'table' = %s AND source ->> 'column' = %s",
            (run_id, f"{target.schema}.{target.table}", target.new_column),
        ).fetchall()
        if others:
            yield (
                f"{target.name} belongs to run {others[0][0]}: take that back first, vecferry rollback {others[0][0]} "
                f"(what it bought is kept), or choose another new_column"
            )
            return
    side = sql.Identifier(SCHEMA, target.shadow)
    ours = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (side.as_string(),)).fetchone() == (True,)
    if target.beside or not _has_column(connection, target):
        return
    column = sql.Identifier(target.new_column)
    if ours:
        # A row whose key was changed took its vector along; it waits in the queue.
        query = sql.SQL(
            "SELECT count(*) FROM {live} AS b WHERE {column} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {side} AS s WHERE {same}) "
            "AND {id} NOT IN (SELECT q.id FROM {queue} AS q WHERE q.id IS NOT NULL)"
        ).format(
            live=target.live.identifier,
            column=column,
            side=side,
            same=sql.SQL(target.live.same("s", "b")),
            id=sql.SQL(target.live.id("b")),
            queue=sql.Identifier(SCHEMA, queue_name(target)),
        )
    else:
        query = sql.SQL("SELECT count(*) FROM {} WHERE {} IS NOT NULL").format(target.live.identifier, column)
    row = connection.execute(query).fetchone()
    if row and row[0]:
        yield (
            f"{target.name} holds {row[0]} vectors that run {run_id} did not write, and two spaces in one column cannot be "
            f"told apart: choose another new_column, or empty it"
        )
    space = (
        connection.execute(
            "SELECT space FROM vecferry.relation WHERE table_schema = %s AND table_name = %s", (SCHEMA, target.shadow)
        ).fetchone()
        if ours
        else None
    )
    if space and space[0] != target.space:
        yield f"{target.name} holds vectors of {space[0]}, and this run makes those of {target.space}"


def _has_column(connection: Connection, target: ColumnTarget) -> bool:
    row = connection.execute(
        "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped",
        (target.live.identifier.as_string(), target.new_column),
    ).fetchone()
    return row is not None
