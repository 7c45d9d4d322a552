"""Where a table differs from its source: one comparison, for catching up, for syncing and for verifying.

A page of the source is sent to PostgreSQL, which compares documents, metadata, uris, hashes and vectors with what it
holds. Rows that somebody else wrote into a live table are told apart by their content hash: it is
null, or it is not the hash of what the row says.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from sql import statement
from tasks.runs import ledger, quarantine
from tasks.runs.artifacts import Tell, quiet
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.runs.vectors import embedded
from tasks.stores import canonical
from tasks.stores.interface import Source
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pages import differing, stage_page
from tasks.stores.postgres.table import READ_ROWS, Table, copy_ids, with_hash

READERS = 3
"""Pages under way at a time."""
KEPT = 1_000
"""Ids of one kind that are remembered by name; the rest are counted."""


@dataclass(frozen=True)
class Named:
    """How many, and the first of them by name."""

    count: int = 0
    ids: tuple[str, ...] = ()

    def __add__(self, other: "Named") -> "Named":
        return Named(self.count + other.count, (self.ids + other.ids)[:KEPT])


def named(ids: list[str]) -> Named:
    """All of ``ids``, the first thousand by name."""
    return Named(len(ids), tuple(ids[:KEPT]))


@dataclass(frozen=True)
class Difference:
    """Rows by what is wrong with them."""

    compared: int = 0
    missing: Named = Named()
    stale: Named = Named()
    orphaned: Named = Named()
    edited: Named = Named()
    """Changed by somebody else since we wrote them: left as they are."""
    added: Named = Named()
    """Put into the table by somebody else: left as they are."""
    quarantined: Named = Named()
    listed: int = 0
    """Ids that the source listed."""
    counted: tuple[int, int] | None = None
    """The source's own count, before and after it listed them; None where it was not asked."""

    @property
    def touched(self) -> int:
        return self.missing.count + self.stale.count + self.orphaned.count

    @property
    def foreign(self) -> int:
        return self.edited.count + self.added.count

    @property
    def ids(self) -> list[str]:
        """What differs, as far as it is known by name."""
        return [*self.missing.ids, *self.stale.ids, *self.orphaned.ids]

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(
            self.compared + other.compared,
            self.missing + other.missing,
            self.stale + other.stale,
            self.orphaned + other.orphaned,
            self.edited + other.edited,
            self.added + other.added,
            self.quarantined + other.quarantined,
            self.listed + other.listed,
            self.counted or other.counted,
        )


def compare(
    run: Run,
    target: Target,
    table: Table,
    *,
    apply: bool,
    journal: bool = False,
    only: list[str] | None = None,
    tell: Tell = quiet,
) -> Difference:
    """One pass over the source, page by page; with ``apply`` the table is brought in line, a page a transaction.

    ``only`` restricts it to these ids. ``journal`` keeps what a page replaces, so that a sync can be taken back.
    """
    source = run.source()
    found, ids = Difference(), pa.array(only or [], pa.string())
    if only is None:
        before = source.collection(target.collection.name).count
        ids = _listed(run, source, target)
        after = source.collection(target.collection.name).count
        found = Difference(listed=len(ids), counted=(before, after))
    pages = (ids[at : at + READ_ROWS] for at in range(0, len(ids), READ_ROWS))
    gone = list[str]()
    # Reading one page while PostgreSQL works on another: both wait for somebody else most of the time.
    with _connections(run, min(READERS, -(-len(ids) // READ_ROWS))) as take, ThreadPoolExecutor(READERS) as pool:

        def work(part: pa.Array) -> tuple[Difference, list[str]]:
            with take() as connection:
                return _page(run, connection, source, target, table, part, apply, journal)

        for part in _bounded(pool, work, pages):
            found += part[0]
            gone += part[1]
            tell(found.compared / max(1, len(ids)))
    if gone and only is None:  # removed since the listing: to be looked at as orphans
        ids = ids.filter(pc.invert(pc.is_in(ids, pa.array(gone, pa.string()))))
    with run.connection() as connection:
        return found + _orphans(run, connection, source, target, table, ids, apply, journal, only)


def _listed(run: Run, source: Source, target: Target) -> pa.Array:
    if target.limit and target.place.loads:
        from tasks.snapshot import snapshot_ids

        return snapshot_ids(run, target)
    return source.ids(target.collection.name)


def _page(
    run: Run,
    connection: Connection,
    source: Source,
    target: Target,
    table: Table,
    ids: pa.Array,
    apply: bool,
    journal: bool,
) -> tuple[Difference, list[str]]:
    """The page's difference, and which of its ids the source has no longer."""
    records = source.fetch(target.collection.name, ids.to_pylist())
    page, refused = embedded(run, target, with_hash(pa.Table.from_batches([records])))
    page, rejected = quarantine.sift(connection, page, target.place.layout, run.plan.request.nul, refused)
    bad = rejected.column("id").to_pylist() if rejected else []
    if apply and rejected:
        quarantine.keep_page(run, target.number, rejected)
    with connection.transaction():
        ledger.check_stop(connection, run.run_id)
        missing: list[str] = []
        stale: list[str] = []
        edited: list[str] = []
        for name, present, *held in differing(connection, table, page, target.place.layout.tolerance):
            kind = missing if not present else stale if ours(*held) else edited
            kind.append(name)
        if apply and (missing or stale):
            stage_page(connection, table, page.filter(pc.is_in(page["id"], pa.array(missing + stale, pa.string()))))
            if journal:
                _journal(connection, run, target, table)
            connection.execute(statement("sync_upsert", schema=table.schema, table=table.name))
    gone = sorted(set(ids.to_pylist()) - set(records.column("id").to_pylist()))
    return Difference(page.num_rows, named(missing), named(stale), edited=named(edited), quarantined=named(bad)), gone


def _orphans(
    run: Run,
    connection: Connection,
    source: Source,
    target: Target,
    table: Table,
    ids: pa.Array,
    apply: bool,
    journal: bool,
    only: list[str] | None,
) -> Difference:
    """Rows of the table whose id the source no longer has."""
    found = Difference()
    gone_from = (
        "held.id IN (SELECT id FROM listed)"
        if only is not None
        else "NOT EXISTS (SELECT 1 FROM listed WHERE listed.id = held.id)"
    )
    query = sql.SQL("SELECT held.id, document, metadata::text, uri, content_hash FROM {} AS held WHERE {}").format(
        table.identifier, sql.SQL(gone_from)
    )
    with connection.transaction(), connection.cursor("vecferry_orphans") as cursor:
        connection.execute("CREATE TEMPORARY TABLE listed (id text) ON COMMIT DROP")
        copy_ids(connection, sql.Identifier("listed"), ids)
        connection.execute("ANALYZE listed")
        cursor.execute(query)
        while rows := cursor.fetchmany(READ_ROWS):
            # Asked again: an id that was added after the listing is no orphan.
            there = set(source.fetch(target.collection.name, [r[0] for r in rows]).column("id").to_pylist())
            if there and only is None:  # nor has any page compared it
                with run.connection() as other:
                    new = pa.array(sorted(there), pa.string())
                    found += _page(run, other, source, target, table, new, apply, journal)[0]
            gone = [r for r in rows if r[0] not in there]
            orphaned = [name for name, *held in gone if ours(*held)]
            if apply and orphaned:
                _remove(connection, run, target, table, orphaned, journal)
            added = [name for name, *held in gone if not ours(*held)]
            found += Difference(orphaned=named(orphaned), added=named(added))
    return found


def _remove(connection: Connection, run: Run, target: Target, table: Table, ids: list[str], journal: bool) -> None:
    if journal:
        connection.execute(
            sql.SQL(
                "INSERT INTO vecferry.undo (run_id, target, id, present, document, metadata, uri, embedding, content_hash) "
                "SELECT %s, %s, id, true, document, metadata, uri, embedding::text, content_hash FROM {} WHERE id = ANY(%s)"
            ).format(table.identifier),
            (run.run_id, target.number, ids),
        )
    connection.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(table.identifier), (ids,))


def ours(document: str | None, metadata: str | None, uri: str | None, stored: bytes | None) -> bool:
    """Whether the row still says what we wrote."""
    text = None if metadata is None else canonical.dumps(json.loads(metadata))
    return stored is not None and bytes(stored) == canonical.content_hash(document, text, uri)


def _journal(connection: Connection, run: Run, target: Target, table: Table) -> None:
    connection.execute(
        sql.SQL(
            "INSERT INTO vecferry.undo (run_id, target, id, present, document, metadata, uri, embedding, content_hash) "
            "SELECT %s, %s, page.id, held.id IS NOT NULL, held.document, held.metadata, held.uri, held.embedding::text, "
            "held.content_hash FROM page LEFT JOIN {} AS held ON held.id = page.id"
        ).format(table.identifier),
        (run.run_id, target.number),
    )


@contextmanager
def _connections(run: Run, count: int) -> Iterator[Callable[[], AbstractContextManager[Connection]]]:
    """That many connections, each lent to one thread at a time: one made for every page would cost as much as the
    comparison."""
    idle: SimpleQueue[Connection] = SimpleQueue()
    with ExitStack() as opened:
        for _ in range(count):
            idle.put(opened.enter_context(run.connection()))

        @contextmanager
        def take() -> Iterator[Connection]:
            connection = idle.get()
            try:
                yield connection
            finally:
                idle.put(connection)

        yield take


def _bounded(pool: ThreadPoolExecutor, work: Any, items: Iterator[Any], ahead: int = READERS) -> Iterator[Any]:
    """``pool.map`` that takes items only as fast as results are used, so that memory does not grow with them."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
