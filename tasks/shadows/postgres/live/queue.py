"""Catching up with a live table: what its triggers noted is embedded again, written, and taken off the queue."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from tasks.base.words import agreeing, counted
from tasks.runs import checkpoints, ledger, quarantine
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.runs.vectors import embedded
from tasks.shadows.difference import Difference, Named, named
from tasks.shadows.postgres import in_use
from tasks.shadows.postgres.live.comparison import compare
from tasks.shadows.postgres.live.place import bring_forward, queue, side_table
from tasks.shadows.postgres.live.rows import LiveRows
from tasks.shadows.postgres.live.statements import statements_of
from tasks.stores.postgres import pace, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_records import LiveRecords
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.table import READ_ROWS
from tasks.stores.records import with_hash

logger = logging.getLogger("vecferry")
WORKERS = 2
DEAD = 0.2
"""Share of replaced rows from which the side table is vacuumed: autovacuum's own, which comes a minute later."""


def follow(rows: LiveRows, only: list[str] | None = None) -> Difference:
    """What the queue holds now, and not what comes to it meanwhile: under steady writes a pass ends too."""
    run, target = rows.run, rows.target
    if only is not None:
        with run.connection() as connection:
            return renew(rows, connection, only, [])
    with run.connection() as connection:
        missed = _unnoted(rows, connection) if bring_forward(connection, target) else Difference()
        if target.place.live.only and not run.plan.limited:
            with pace.turn(connection):
                connection.execute(statements_of(target.place).moved)
        row = connection.execute(
            sql.SQL("SELECT count(*), coalesce(max(seq), 0) FROM {}").format(queue(target.place))
        ).fetchone()
    assert row
    total, last = row
    if not total:
        return missed
    workers = min(WORKERS, -(-total // READ_ROWS))
    with ThreadPoolExecutor(workers, "catch-up") as pool:
        shares = [pool.submit(_drain, rows, worker, workers, last) for worker in range(workers)]
        total = sum((share.result() for share in shares), missed)
    if target.place.in_shadow:
        _tidy(run, target, total.touched)
    return total


def _unnoted(rows: LiveRows, connection: Connection) -> Difference:
    """Brings in line what was changed while nobody noted it, by a comparison of every row."""
    logger.warning(
        "%s: triggers of vecferry's were switched off or gone, and are back; every row is compared",
        rows.target.collection.name,
    )
    total, ids = Difference(), compare(rows.run, rows.target).ids
    while ids:
        total += renew(rows, connection, ids, [])
        left = compare(rows.run, rows.target).ids
        ids = left if left != ids else []
    return total


def note_all(rows: LiveRows) -> None:
    """Puts every row on the queue."""
    run, live = rows.run, rows.target.place.live
    ids = LiveRecords(run.connection, rows.target.collection.name, live).ids().to_pylist()
    with run.connection() as connection:
        for at in range(0, len(ids), READ_ROWS):
            with pace.turn(connection):
                connection.execute(statements_of(rows.target.place).note, (ids[at : at + READ_ROWS],))


def stuck(rows: LiveRows) -> Named:
    """Rows that a pass does not take off the queue; one is made where any wait. What others change meanwhile waits too, and is
    none of them."""
    run, queued = rows.run, queue(rows.target.place)
    with run.connection() as connection:
        if bring_forward(connection, rows.target):
            _unnoted(rows, connection)
        row = connection.execute(
            sql.SQL("SELECT pg_current_snapshot()::text, EXISTS (SELECT 1 FROM {})").format(queued)
        ).fetchone()
    assert row
    if not row[1]:
        return Named()
    follow(rows)
    with run.connection() as connection:
        left = connection.execute(
            sql.SQL(
                "SELECT DISTINCT id FROM {} WHERE pg_visible_in_snapshot(noted_in, %s::pg_snapshot) ORDER BY 1"
            ).format(queued),
            (row[0],),
        )
        return named([name or "TRUNCATE" for (name,) in left])


def _tidy(run: Run, target: Target[LivePlace], replaced: int) -> None:
    """A search passes over what was replaced until it is vacuumed, and finds less for it."""
    with run.connection() as connection:
        side = side_table(target.place)
        if replaced > DEAD * relations.estimated_count(connection, side):
            connection.execute(sql.SQL("VACUUM {}").format(side))


def _drain(rows: LiveRows, worker: int, workers: int, last: int) -> Difference:
    """The part of one worker: a row's changes all fall to the same, so that no two write it at once."""
    total = Difference()
    with rows.run.connection() as connection:
        while True:
            noted = connection.execute(
                sql.SQL(
                    "SELECT seq, id FROM {} WHERE seq <= %s AND (id IS NULL OR abs(hashtext(id)::bigint) %% %s = %s) "
                    "ORDER BY seq LIMIT {}"
                ).format(queue(rows.target.place), sql.Literal(READ_ROWS)),
                (last, workers, worker),
            ).fetchall()
            if not noted:
                return total
            ids = list(dict.fromkeys(name for _, name in noted if name is not None))
            if any(name is None for _, name in noted):
                rows.truncated(connection)
            total += renew(rows, connection, ids, [seq for seq, _ in noted])


def renew(rows: LiveRows, connection: Connection, ids: list[str], seqs: list[int]) -> Difference:
    """Brings these rows in line and takes exactly these entries off the queue."""
    run, target = rows.run, rows.target
    fetched = _texts(rows, ids)
    page, refused = embedded(run, target, fetched)
    page, rejected = rows.sift(page, refused)
    filled = page.filter(pc.is_valid(page["embedding"]))
    lacking = filled if target.content.steady and not target.place.shared else _lacking(rows, connection, filled)
    if rejected:
        quarantine.keep_page(run, target.number, rejected)
    old = _of_old_model(run, target, connection, fetched)
    there, written = rows.known(connection, ids), lacking["id"].to_pylist()
    with run.turn(connection) as turn:
        checkpoints.check_stop(connection, run.run_id)
        lacking = rows.early(connection, lacking, False, turn)
        if old is not None:
            old = rows.early_old(connection, old, turn)
    with pace.turn(connection), connection.transaction():
        checkpoints.check_stop(connection, run.run_id)
        silent = sorted(set(ids) - set(filled["id"].to_pylist()))
        if old is not None:  # first, as whoever writes a vector beside has the row of the table before that
            rows.update_old(connection, old)
        removed = rows.remove(connection, silent)
        rows.put(connection, lacking, fresh=False)
        if rejected:
            rows.refuse(connection, rejected)
        connection.execute(statements_of(target.place).done, (seqs,))
    return Difference(
        missing=named([i for i in written if i not in there]),
        stale=named([i for i in written if i in there]),
        orphaned=Named(removed),
        quarantined=named(rejected["id"].to_pylist()) if rejected else Named(),
    )


def renew_old(rows: LiveRows) -> None:
    """Brings the old vectors of the rows that wait in line with what these say. They go on waiting for their new ones."""
    run, target = rows.run, rows.target
    with run.connection() as connection:
        ids = _waiting(rows, connection)
        for at in range(0, len(ids), READ_ROWS):
            old = _of_old_model(run, target, connection, _texts(rows, ids[at : at + READ_ROWS]))
            if old is None:
                return
            with run.turn(connection) as turn:
                rest = rows.early_old(connection, old, turn)
                with connection.transaction():
                    rows.update_old(connection, rest)


def overwritten(rows: LiveRows, only: list[str] | None = None) -> Named:
    """Rows in the queue that say what they said when they were embedded, and have another vector than the model's own, or none: others
    have written it. Writes nothing."""
    names = list[str]()
    with rows.run.connection() as connection:
        ids = [i for i in _waiting(rows, connection) if only is None or i in only]
        for at in range(0, len(ids), READ_ROWS):
            fetched = _texts(rows, ids[at : at + READ_ROWS])
            page, _ = embedded(rows.run, rows.target, fetched.filter(_known(rows, connection, fetched)))
            names += rows.unlike(connection, page.filter(pc.is_valid(page["embedding"])))
    return named(names)


def _waiting(rows: LiveRows, connection: Connection) -> list[str]:
    query = sql.SQL("SELECT DISTINCT id FROM {} WHERE id IS NOT NULL ORDER BY 1").format(queue(rows.target.place))
    return [name for (name,) in connection.execute(query)]


def _texts(rows: LiveRows, ids: list[str]) -> pa.Table:
    records = LiveRecords(rows.run.connection, rows.target.collection.name, rows.target.place.live)
    return with_hash(pa.Table.from_batches([records.texts(ids)]))


def _known(rows: LiveRows, connection: Connection, page: pa.Table) -> pa.Array:
    """Which rows of a page say what is known of them."""
    there = rows.known(connection, page["id"].to_pylist())
    pairs = zip(page["id"].to_pylist(), page["content_hash"].to_pylist(), strict=True)
    return pa.array([there.get(name) == hashed for name, hashed in pairs], pa.bool_())


def _lacking(rows: LiveRows, connection: Connection, page: pa.Table) -> pa.Table:
    """Of a page those rows whose vector is not there yet; others may write to the column too, and may have the model's own."""
    unlike = set(rows.unlike(connection, page))
    known = _known(rows, connection, page)
    other = pa.array([name in unlike for name in page["id"].to_pylist()], pa.bool_())
    if of_others := page.filter(pc.and_(known, other)).num_rows:
        logger.warning(
            "%s: %s not what this run's model gives: someone else wrote it, or the image was replaced; %s put right",
            rows.target.place.column,
            counted(of_others, "vector", "were"),
            agreeing(of_others, "were"),
        )
    return page.filter(pc.or_(other, pc.invert(known)))


def _of_old_model(run: Run, target: Target[LivePlace], connection: Connection, fetched: pa.Table) -> pa.Table | None:
    """The page with old vectors made anew, once the application has moved on and makes none itself, and after a rollback too, for
    rows that it wrote before that; None before, or where the old model is not named."""
    request, place = run.plan.request, target.place
    if request.old_embedder is None or not in_use.ever(connection, place):
        return None
    if ledger.get(connection, run.run_id).state == "contracted" and not place.old_stays:
        return None
    vectors = place.old_vectors
    if vectors is None or not relations.has_column(connection, vectors.identifier, vectors.column):
        return None  # kept current by the run that made them, or dropped by a contract
    if relations.is_generated(connection, vectors.identifier, vectors.column):
        return None  # it is up to date by itself
    return embedded(run, target, fetched, model=request.old_embedder)[0]
