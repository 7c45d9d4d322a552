"""Cutover: shadow tables take the final names in one transaction; rollback gives them back; contract ends the choice."""

import random
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prefect import task
from psycopg import errors, sql

from sql import statement
from tasks import ledger
from tasks.difference import ours
from tasks.errors import TransientError, UsageError, VerificationRefused
from tasks.plan import SCHEMA, Target, short, suffix
from tasks.retrying import RETRYING
from tasks.run import Run, open_run
from tasks.stores.connection import Connection, classified
from tasks.stores.postgres import Table

LOCK_TIMEOUT = "50ms"
"""A reader waits behind a waiting rename: with 2 s one stalled 1.7 s, with 50 ms and retries at most 0.05 s."""
LOCK_TRIES = 200


@dataclass(frozen=True)
class Switched:
    """What one target's switch did."""

    table: str
    rows: int
    previous: str | None


def current_table(connection: Connection, run: Run, target: Target) -> Table:
    """Where the target's rows are now: the shadow, or the final name. Raises UsageError when they are nowhere."""
    if target.mode == "sync":
        return target.final
    row = connection.execute(
        "SELECT table_schema, table_name FROM vecferry.relation WHERE run_id = %s AND target = %s AND role <> 'previous'",
        (run.run_id, target.number),
    ).fetchone()
    if row is None:
        raise UsageError(
            f"run {run.run_id} has no table for {target.name} any more: run it again, or see `vecferry status`"
        )
    return Table(row[0], row[1], target.layout)


def cutover(run: Run) -> list[Switched]:
    """Gives every target its final name, all in one transaction. A switched target stays as it is.

    Raises VerificationRefused when the run is not verified or something depends on a table that would step aside.
    """
    with run.connection() as connection, classified("cutover"):
        record = ledger.get(connection, run.run_id)
        if run.plan.request.limit:
            raise VerificationRefused(
                f"run {run.run_id} is a smoke run (limit={run.plan.request.limit}), which never cuts over"
            )
        if record.state == "cut_over":
            return []
        if record.state != "verified":
            raise VerificationRefused(
                f"run {run.run_id} is {record.state}, not verified: `vecferry run` it again first"
            )
        targets = [t for t in run.plan.targets if t.mode != "sync"]
        if depending := [line for t in targets for line in dependents(connection, t.final)]:
            raise VerificationRefused(
                "cutover refused, because these would stay on the old table: " + "; ".join(depending)
            )

        def switch() -> list[Switched]:
            switched = [_switch(connection, run, target) for target in targets]
            ledger.set_state(connection, run.run_id, "cut_over")
            return switched

        return _locked(connection, switch)


def rollback(run: Run) -> list[str]:
    """Takes the run back, whatever it has done so far; returns what was done, a line each.

    After a cutover the earlier tables get their names again and the new ones are kept as shadows, fit for another
    cutover. Before one, the shadows are dropped. A sync's changes are undone row by row, save where somebody else has
    changed the row since. Raises UsageError when the run was contracted.
    """
    with run.connection() as connection, classified("rollback"):
        state = ledger.get(connection, run.run_id).state
        if state == "rolled_back":
            return []
        if state == "contracted":
            raise UsageError(f"run {run.run_id} is contracted: what a rollback needs was dropped")

        def back() -> list[str]:
            lines = []
            for target in run.plan.targets:
                if target.mode == "sync":
                    lines.append(_undo(connection, run, target))
                elif state == "cut_over":
                    lines.append(_switch_back(connection, run, target))
                else:
                    lines.append(_drop_shadow(connection, run, target))
            if state != "cut_over":
                for stage in ("load", "index", "catch_up", "verify"):
                    connection.execute(
                        "DELETE FROM vecferry.batch WHERE run_id = %s AND stage = %s", (run.run_id, stage)
                    )
            ledger.set_state(connection, run.run_id, "rolled_back")
            return lines

        return _locked(connection, back)


def contract(run: Run, rollback_days: float | None, now: datetime | None = None) -> list[str]:
    """Drops what a rollback would need, once the rollback window is over; returns what was dropped.

    ``rollback_days`` None stands for those of the plan. Raises VerificationRefused before that, and UsageError when the
    run was not cut over. ``now`` is the server's clock.
    """
    with run.connection() as connection, classified("contract"):
        record = ledger.get(connection, run.run_id)
        if record.state == "contracted":
            return []
        if record.state != "cut_over":
            raise UsageError(f"run {run.run_id} is {record.state}: only a run that was cut over can be contracted")
        row = connection.execute("SELECT now()").fetchone()
        assert row
        days = run.plan.request.rollback_days if rollback_days is None else rollback_days
        opens = record.cut_over_at + timedelta(days=days)
        if (now or row[0]) < opens:
            raise VerificationRefused(
                f"the rollback window of {days:g} days ends {opens:%Y-%m-%d %H:%M %Z}; until then the old tables stay"
            )

        def drop() -> list[str]:
            dropped = []
            previous = connection.execute(
                "SELECT p.table_schema, p.table_name FROM vecferry.relation p JOIN vecferry.relation l "
                "ON l.run_id = %s AND p.role = 'previous' AND p.stepped_aside_for = l.run_id AND p.stepped_aside_for_target = l.target",
                (run.run_id,),
            ).fetchall()
            for schema, name in previous:
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(schema, name)))
                connection.execute(
                    "DELETE FROM vecferry.relation WHERE table_schema = %s AND table_name = %s", (schema, name)
                )
                dropped.append(f"dropped {schema}.{name}")
            undone = connection.execute("DELETE FROM vecferry.undo WHERE run_id = %s", (run.run_id,)).rowcount
            if undone:
                dropped.append(f"forgot how to undo {undone} rows of this sync")
            ledger.set_state(connection, run.run_id, "contracted")
            return dropped

        return _locked(connection, drop)


def dependents(connection: Connection, table: Table) -> list[str]:
    """What would silently stay on the table when another takes its name: views, foreign keys, policies, triggers,
    publications, and functions with a SQL body."""
    rows = connection.execute(statement("cutover_dependents", table=table.identifier.as_string())).fetchall()
    return [f"{kind} {name} depends on {table}" for kind, name in rows]


def _switch(connection: Connection, run: Run, target: Target) -> Switched:
    held = connection.execute(
        "SELECT c.relname, r.run_id, r.role FROM pg_class c LEFT JOIN vecferry.relation r "
        "ON r.table_schema = %s AND r.table_name = c.relname "
        "WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relname = %s",
        (target.schema, target.schema, target.table),
    ).fetchone()
    previous = None
    if held:
        if held[2] != "live":
            raise VerificationRefused(
                f"{target.name} exists and is not vecferry's: rename it, or choose another name with `tables`"
            )
        previous = f"{short(target.table, 40)}__prev_{suffix(run.run_id, target.name)}"
        _copy_grants(connection, target)
        _move(connection, target.final, SCHEMA, previous)
        connection.execute(
            "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'previous', stepped_aside_for = %s, "
            "stepped_aside_for_target = %s WHERE table_schema = %s AND table_name = %s",
            (SCHEMA, previous, run.run_id, target.number, target.schema, target.table),
        )
    _move(connection, target.hidden, target.schema, target.table)
    connection.execute(
        "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'live' WHERE table_schema = %s AND table_name = %s",
        (target.schema, target.table, SCHEMA, target.shadow),
    )
    rows = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(target.final.identifier)).fetchone()
    assert rows
    return Switched(target.name, rows[0], f"{SCHEMA}.{previous}" if previous else None)


def _switch_back(connection: Connection, run: Run, target: Target) -> str:
    _move(connection, target.final, SCHEMA, target.shadow)
    connection.execute(
        "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'shadow' WHERE table_schema = %s AND table_name = %s",
        (SCHEMA, target.shadow, target.schema, target.table),
    )
    previous = connection.execute(
        "SELECT table_name FROM vecferry.relation WHERE role = 'previous' AND stepped_aside_for = %s AND stepped_aside_for_target = %s",
        (run.run_id, target.number),
    ).fetchone()
    if previous is None:
        return f"{target.name} is gone again; its rows are kept in {SCHEMA}.{target.shadow}"
    _move(connection, Table(SCHEMA, previous[0], target.layout), target.schema, target.table)
    connection.execute(
        "UPDATE vecferry.relation SET table_schema = %s, table_name = %s, role = 'live', stepped_aside_for = NULL, "
        "stepped_aside_for_target = NULL WHERE table_schema = %s AND table_name = %s",
        (target.schema, target.table, SCHEMA, previous[0]),
    )
    return f"{target.name} is the earlier table again; the new rows are kept in {SCHEMA}.{target.shadow}"


def _drop_shadow(connection: Connection, run: Run, target: Target) -> str:
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(target.hidden.identifier))
    connection.execute(
        "DELETE FROM vecferry.relation WHERE run_id = %s AND target = %s AND role = 'shadow'",
        (run.run_id, target.number),
    )
    return f"{target.name} was not switched yet; its shadow table was dropped, the snapshot is kept"


def _undo(connection: Connection, run: Run, target: Target) -> str:
    """Puts back what the sync replaced or removed, save rows that somebody else has changed since."""
    table = target.final
    held = connection.execute(
        sql.SQL(
            "SELECT id, document, metadata::text, uri, content_hash FROM {} "
            "WHERE id IN (SELECT id FROM vecferry.undo WHERE run_id = %s AND target = %s)"
        ).format(table.identifier),
        (run.run_id, target.number),
    ).fetchall()
    foreign = [name for name, *row in held if not ours(*row)]
    connection.execute(
        "DELETE FROM vecferry.undo WHERE run_id = %s AND target = %s AND id = ANY(%s)",
        (run.run_id, target.number, foreign),
    )
    where: dict[str, Any] = {
        "schema": table.schema,
        "table": table.name,
        "type": target.type,
        "run_id": run.run_id,
        "target": target.number,
    }
    restored = connection.execute(statement("rollback_sync_restore", **where)).rowcount
    removed = connection.execute(statement("rollback_sync_remove", **where)).rowcount
    connection.execute("DELETE FROM vecferry.undo WHERE run_id = %s AND target = %s", (run.run_id, target.number))
    kept = f"; {len(foreign)} that were changed since were left" if foreign else ""
    return f"{target.name}: {restored} rows put back, {removed} taken out again{kept}"


def _move(connection: Connection, table: Table, schema: str, name: str) -> None:
    # Renamed first where the name is free: within one schema a shadow and a final name never collide.
    if table.schema != schema:
        step = f"{short(name, 40)}__moving"
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(table.identifier, sql.Identifier(step)))
        connection.execute(
            sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(sql.Identifier(table.schema, step), sql.Identifier(schema))
        )
        table = Table(schema, step, table.layout)
    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(table.identifier, sql.Identifier(name)))


def _copy_grants(connection: Connection, target: Target) -> None:
    rows = connection.execute(
        "SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END, g.privilege_type, g.is_grantable "
        "FROM pg_class c, aclexplode(c.relacl) AS g WHERE c.oid = to_regclass(%s) AND g.grantee <> c.relowner",
        (target.final.identifier.as_string(),),
    ).fetchall()
    for grantee, privilege, grantable in rows:
        connection.execute(
            f"GRANT {privilege} ON {target.hidden.identifier.as_string()} TO {grantee}{' WITH GRANT OPTION' if grantable else ''}"
        )


def _locked(connection: Connection, change: Any) -> Any:
    """Runs ``change`` in one transaction that never makes a reader wait behind it for longer than LOCK_TIMEOUT."""
    for attempt in range(LOCK_TRIES):
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
                return change()
        except errors.LockNotAvailable:
            time.sleep(min(1.0, 0.02 * 2 ** min(attempt, 6)) * random.uniform(0.5, 1.5))
    raise TransientError(
        f"no lock within {LOCK_TIMEOUT} in {LOCK_TRIES} tries: a long transaction holds the table; see pg_stat_activity"
    )


@task(name="cutover", task_run_name="cut over {run_id}", **RETRYING)
def cutover_task(run_id: str, database: str) -> list[Switched]:
    return cutover(open_run(run_id, database))


@task(name="rollback", task_run_name="roll back {run_id}", **RETRYING)
def rollback_task(run_id: str, database: str) -> list[str]:
    return rollback(open_run(run_id, database))


@task(name="contract", task_run_name="contract {run_id}", **RETRYING)
def contract_task(run_id: str, database: str, rollback_days: float | None) -> list[str]:
    return contract(open_run(run_id, database), rollback_days)
