"""A database and a VECFERRY_HOME as 0.1.0 left them, with a run in every state; see tests/fixtures/ledger_0_1_0/make.py."""

import tarfile
from pathlib import Path

import psycopg

FIXTURE = Path(__file__).parent / "fixtures" / "ledger_0_1_0"
KINDS = ("chroma", "column", "side_table")
STATES = {
    "planned": "planned",
    "killed": "running",
    "failed": "failed",
    "verified": "verified",
    "cut_over": "cut_over",
    "dropped": "rolled_back",
    "rolled_back": "rolled_back",
    "contracted": "contracted",
}
"""How a run of the fixture is called, after its kind and a hyphen, and the state that its ledger says."""


def restore(url: str, root: Path) -> None:
    """Fills the empty database at ``url``, and puts home/ and chroma/ into ``root``."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((FIXTURE / "dump.sql").read_text().replace("@ROOT@", str(root)))  # type: ignore[arg-type]
    with tarfile.open(FIXTURE / "home.tar.xz") as archive:
        archive.extractall(root, filter="data")
