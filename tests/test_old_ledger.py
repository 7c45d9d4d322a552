"""A ledger of 0.1.0 is read as it is, gets the columns it lacks from the first verb that writes, and its runs go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.catch_up import catch_up
from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.contract import contract
from flows.cutover import cutover
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from flows.verify import verify
from tasks.runs import ledger_versions, status
from tasks.stores.postgres.connection import Connection
from tests import old_ledger
from tests.old_ledger import KINDS, STATES

COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = 'vecferry.run'::regclass AND attname = ANY(%s)"
GONE_ON: dict[str, tuple[str, Callable[..., Any] | None]] = {
    "planned": ("verified", None),
    "killed": ("verified", None),
    "failed": ("verified", None),
    "verified": ("cut_over", cutover),
    "cut_over": ("rolled_back", rollback),
    "rolled_back": ("cut_over", cutover),
    "dropped": ("verified", None),
}
"""What each run becomes by which verb; None: by resuming it."""


@pytest.fixture
def old(connection: Connection, database: str, tmp_path: Path) -> Connection:
    """The database of the fixture, in place of an empty one."""
    connection.execute("DROP EXTENSION vector")
    old_ledger.restore(database, tmp_path)
    return connection


def test_it_is_read_as_it_is(old: Connection) -> None:
    """status and next of every run, and nothing is added to a ledger that is only read."""
    expected = {"planned": "run", "killed": "run", "failed": "rerun", "verified": "cutover", "cut_over": None}
    expected |= {"dropped": "run", "rolled_back": "cutover", "contracted": None}
    for kind in KINDS:
        for name, state in STATES.items():
            outcome = status.outcome(old, f"{kind}-{name}")
            assert (outcome["state"], outcome["gates"]) == (state, None), name
            assert outcome["now"] == ("killed" if name == "killed" else None), name
            assert (outcome["next"] and outcome["next"].split()[1]) == expected[name], name
            assert bool(outcome["later"]) == (name == "cut_over")
    assert old.execute(COLUMNS, (list(ledger_versions.WORK),)).fetchall() == []


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("kind", KINDS)
def test_its_runs_go_on(old: Connection, kind: str) -> None:
    """Every run that is not at its end is taken on from where 0.1.0 left it, and the first verb adds the columns."""
    resume = chroma_to_pgvector if kind == "chroma" else text_384_to_1536
    for name, (state, verb) in GONE_ON.items():
        outcome = (verb or resume)(run_id=f"{kind}-{name}")
        assert (outcome["state"], outcome["exit"]) == (state, 0), name
        assert len(old.execute(COLUMNS, (list(ledger_versions.WORK),)).fetchall()) == len(ledger_versions.WORK)
    assert status.outcome(old, f"{kind}-verified")["gates"]["min_recall"] == 0.9
    assert verify(run_id=f"{kind}-verified")["exit"] == 0
    assert contract(run_id=f"{kind}-verified", rollback_days=0)["state"] == "contracted"
    if kind == "side_table":
        old.execute("UPDATE side_table_contracted SET content = 'changed' WHERE id = 3")
        assert catch_up(run_id="side_table-contracted")["targets"][0]["touched"]["updated"] == 1
