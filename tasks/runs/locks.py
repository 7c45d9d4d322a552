"""The advisory locks of vecferry in PostgreSQL, and which runs are held by one."""

from tasks.stores.postgres.connection import Connection

LEDGER = 7_863_291
"""Held while the ledger is made or brought forward."""
RUNS = 7_863_292
"""The class of the locks of runs; the second number is the hash of the run's name."""
# 7_863_293 is the class of the locks that sql/ledger_0004_claims.sql takes.
IN_THIS_DATABASE = (
    "locktype = 'advisory' AND granted AND objsubid = 2 "
    f"AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = {RUNS}::oid"
)
"""Of pg_locks: those of runs."""


def at_work(connection: Connection) -> str | None:
    """A run of this ledger that some process works on, by its lock; None where there is none."""
    row = connection.execute(
        "SELECT coalesce(r.run_id, 'of another ledger') FROM pg_locks "
        f"LEFT JOIN vecferry.run r ON objid = hashtext(r.run_id)::oid WHERE {IN_THIS_DATABASE} LIMIT 1"
    ).fetchone()
    return row[0] if row else None
