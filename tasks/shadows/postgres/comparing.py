"""A table of ours held against its source: one comparison, for catching up, for syncing and for verifying.

A page of the source is sent to PostgreSQL, which compares documents, metadata, uris, hashes and vectors with what it
holds. Rows that somebody else wrote into a table that people use are told apart by their content hash: it is null, or it is
not the hash of what the row says.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from sql import statement
from tasks.base.progress import Tell, quiet
from tasks.embedders.interface import RowError
from tasks.runs import checkpoints, parts, quarantine
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.runs.vectors import embedded
from tasks.shadows.difference import Difference, named
from tasks.stores import canonical
from tasks.stores.interface import Records
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pages import differing, merge_staged, stage_page
from tasks.stores.postgres.places import TablePlace
from tasks.stores.postgres.storable import sift
from tasks.stores.postgres.table import READ_ROWS, Table, copy_ids, remove
from tasks.stores.records import with_hash

NONE_REFUSED: Mapping[int, RowError] = {}
READERS = 3
"""Pages under way at a time."""


@dataclass(frozen=True)
class Comparison:
    """What is held against what, and whether the table is brought in line."""

    run: Run
    target: Target[TablePlace]
    table: Table
    source: Records
    apply: bool = False
    journal: bool = False
    """Whether what a page replaces is kept, so that a sync can be taken back."""


def compare(comparison: Comparison, only: list[str] | None = None, tell: Tell = quiet) -> Difference:
    """One pass over the source, page by page; where it applies the table is brought in line, a page a transaction. ``only``
    restricts it to these ids."""
    run, source = comparison.run, comparison.source
    total, ids = Difference(), pa.array(only or [], pa.string())
    if only is None:
        before = source.count()
        ids = _listed(comparison)
        total = Difference(listed=len(ids), counted=(before, source.count()))
    pages = (ids[at : at + READ_ROWS] for at in range(0, len(ids), READ_ROWS))
    gone = list[str]()
    # Reading one page while PostgreSQL works on another: both wait for somebody else most of the time.
    with _connections(run, min(READERS, -(-len(ids) // READ_ROWS))) as take, ThreadPoolExecutor(READERS) as pool:

        def work(part: pa.Array) -> tuple[Difference, list[str]]:
            with take() as connection:
                return _page(comparison, connection, part)

        for difference, absent in _bounded(pool, work, pages):
            total += difference
            gone += absent
            tell(total.compared / max(1, len(ids)))
    if gone and only is None:  # removed since the listing: to be looked at as orphans
        ids = ids.filter(pc.invert(pc.is_in(ids, pa.array(gone, pa.string()))))
    with run.connection() as connection:
        return total + _orphans(comparison, connection, ids, whole=only is None)


def _listed(comparison: Comparison) -> pa.Array:
    target = comparison.target
    if target.limit and target.place.loads:
        return parts.listed_ids(comparison.run, target)
    return comparison.source.ids()


def _page(comparison: Comparison, connection: Connection, ids: pa.Array) -> tuple[Difference, list[str]]:
    """The page's difference, and which of its ids the source has no longer."""
    run, target, table = comparison.run, comparison.target, comparison.table
    records = comparison.source.fetch(ids.to_pylist())
    page, refused = with_hash(pa.Table.from_batches([records])), NONE_REFUSED
    if not target.carried:
        page, refused = embedded(run, target, page)
    page, rejected = sift(run.connection, page, target.place.layout, target.place.nul, refused)
    bad = rejected.column("id").to_pylist() if rejected else []
    if comparison.apply and rejected:
        quarantine.keep_page(run, target.number, rejected)
    missing, stale, edited = list[str](), list[str](), list[str]()
    with connection.transaction():
        checkpoints.check_stop(connection, run.run_id)
        for name, present, *row in differing(connection, table, page, target.place.layout.tolerance):
            kind = missing if not present else stale if is_ours(*row) else edited
            kind.append(name)
        if comparison.apply and (missing or stale):
            stage_page(connection, table, page.filter(pc.is_in(page["id"], pa.array(missing + stale, pa.string()))))
            if comparison.journal:
                connection.execute(statement("sync_journal_page", **_journalled(comparison)))
            merge_staged(connection, table)
    gone = sorted(set(ids.to_pylist()) - set(records.column("id").to_pylist()))
    return Difference(page.num_rows, named(missing), named(stale), edited=named(edited), quarantined=named(bad)), gone


def _orphans(comparison: Comparison, connection: Connection, ids: pa.Array, whole: bool) -> Difference:
    """Rows of the table whose id the source no longer has: of the whole table, which lists ``ids``, or of these ids."""
    source, table, total = comparison.source, comparison.table, Difference()
    absent = (
        "NOT EXISTS (SELECT 1 FROM listed WHERE listed.id = held.id)" if whole else "held.id IN (SELECT id FROM listed)"
    )
    query = sql.SQL("SELECT held.id, document, metadata::text, uri, content_hash FROM {} AS held WHERE {}").format(
        table.identifier, sql.SQL(absent)
    )
    with connection.transaction(), connection.cursor("vecferry_orphans") as cursor:
        connection.execute("CREATE TEMPORARY TABLE listed (id text) ON COMMIT DROP")
        copy_ids(connection, sql.Identifier("listed"), ids)
        connection.execute("ANALYZE listed")
        cursor.execute(query)
        while rows := cursor.fetchmany(READ_ROWS):
            # Asked once more: an id that was added after the listing is no orphan.
            there = set(source.fetch([r[0] for r in rows]).column("id").to_pylist())
            if there and whole:  # nor has any page compared it
                with comparison.run.connection() as other:
                    total += _page(comparison, other, pa.array(sorted(there), pa.string()))[0]
            gone = [r for r in rows if r[0] not in there]
            orphaned = [name for name, *row in gone if is_ours(*row)]
            if comparison.apply and orphaned:
                _remove(comparison, connection, orphaned)
            added = [name for name, *row in gone if not is_ours(*row)]
            total += Difference(orphaned=named(orphaned), added=named(added))
    return total


def _remove(comparison: Comparison, connection: Connection, ids: list[str]) -> None:
    if comparison.journal:
        query = statement("sync_journal_removed", **_journalled(comparison), ids=sql.Placeholder())
        connection.execute(query, (ids,))
    remove(connection, comparison.table, ids)


def _journalled(comparison: Comparison) -> dict[str, Any]:
    where = {"schema": comparison.table.schema, "table": comparison.table.name}
    return {**where, "run_id": comparison.run.run_id, "target": comparison.target.number}


def is_ours(document: str | None, metadata: str | None, uri: str | None, stored: bytes | None) -> bool:
    """Whether the row still says what we wrote."""
    text = None if metadata is None else canonical.dumps(json.loads(metadata))
    return stored is not None and bytes(stored) == canonical.content_hash(document, text, uri)


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
