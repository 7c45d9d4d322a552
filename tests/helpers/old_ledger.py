"""Databases and VECFERRY_HOMEs as earlier code left them, with a run in every state; see make.py of each fixture."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.fixtures.ledger_0_1_0 import make as make_0_1_0
from tests.fixtures.ledger_before_versions import make as make_before_versions

FIXTURES = Path(__file__).parents[1] / "fixtures"
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "ledger_0_1_0": make_0_1_0.KINDS,
    "ledger_before_versions": make_before_versions.KINDS,
}
"""Fixture → kind of run → the ways in which runs of that kind were left. A run is called KIND-WAY."""
SYNCED = ("chroma-before-sync", "chroma-synced")
"""Besides these, in every fixture: a run that was switched, and one that synced its table."""


@dataclass(frozen=True)
class Left:
    """What ``status`` says of a run that was left in some way."""

    state: str
    now: str | None
    verb: str | None
    """Of the next command."""


WAYS = {
    "planned": Left("planned", None, "run"),
    "snapshot": Left("planned", None, "run"),
    "killed": Left("running", "killed", "run"),
    "killed_snapshot": Left("running", "killed", "run"),
    "killed_load": Left("running", "killed", "run"),
    "killed_index": Left("running", "killed", "run"),
    "killed_catch_up": Left("running", "killed", "run"),
    "killed_cutover": Left("running", "killed", "cutover"),
    "failed": Left("failed", None, "rerun"),
    "refused": Left("failed", None, "run"),
    "verified": Left("verified", None, "cutover"),
    "waiting": Left("verified", "waiting for approval", "cutover"),
    "smoke": Left("verified", None, "rollback"),
    "cut_over": Left("cut_over", None, None),
    "due": Left("cut_over", None, "contract"),
    "dropped": Left("rolled_back", None, "run"),
    "rolled_back": Left("rolled_back", None, "cutover"),
    "contracted": Left("contracted", None, None),
}


def dump(fixture: str) -> str:
    """The SQL that makes its database."""
    return (FIXTURES / fixture / "dump.sql").read_text()


def restore(fixture: str, url: str, root: Path) -> None:
    """Fills the empty database at ``url``, and puts home/ and chroma/ into ``root``, as if they were left a moment ago:
    a rollback window and a wait for an approval are as open as they were."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(dump(fixture).replace("@ROOT@", str(root)))  # type: ignore[arg-type]
        connection.execute("SET search_path = vecferry")
        row = connection.execute("SELECT now() - max(updated_at) FROM run").fetchone()
        assert row
        moments = connection.execute(
            "SELECT c.oid::regclass::text, quote_ident(attname) FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid "
            "WHERE relnamespace = 'vecferry'::regnamespace AND relkind = 'r' AND atttypid = 'timestamptz'::regtype"
        ).fetchall()
        for table, column in moments:
            connection.execute(f"UPDATE {table} SET {column} = {column} + %s", row)  # type: ignore[arg-type]
    with tarfile.open(FIXTURES / fixture / "home.tar.xz") as archive:
        archive.extractall(root, filter="data")
