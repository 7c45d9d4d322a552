"""The harness that drives every flow through its whole life.

A flow's test makes a ``Migration``: how to call the flow, how to change its source, and how to read both sides. The
harness then goes plan → run → rollback → run → cutover → catch-up → rollback → cutover → contract and checks, after every
step, that the target says what the source says and that nothing is there that should not be. All that it sends to
PostgreSQL and that changes more than the ledger must stand in sql/.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from flows.contract import contract
from flows.cutover import cutover
from flows.rollback import rollback
from tasks.base.errors import UsageError, VerificationRefused
from tasks.stores.postgres.connection import Connection
from tests.helpers.sent import only_files_of_sql

Rows = dict[str, Any]


@dataclass(frozen=True)
class Migration:
    """What the harness must know of a flow under test."""

    run: Callable[..., dict[str, Any]]
    """Calls the flow with a run_id."""
    plan: Callable[[], Any]
    """Plans it, and returns something with ``problems``."""
    expected: Callable[[], Rows]
    """What the source says now: id → row."""
    served: Callable[[], Rows | None]
    """What the application reads under the final name; None when there is nothing."""
    change: Callable[[], None]
    """Inserts, changes and deletes at the source."""
    writes: Callable[[], list[str]]
    """The names of all tables there are, to see what was written."""
    gates: dict[str, Any] = field(default_factory=dict)
    """Gates of the cutover that are not the defaults."""
    catch_up: Callable[[str], Any] | None = None
    """Given a run, keeps the target in line with its source after the cutover; None where a later run does that."""
    lives_on: bool = False
    """Whether ``catch_up`` is needed after the contract too, because nothing else would keep the target in line."""
    gone_back: Callable[[], None] = lambda: None
    """Asserts, after a cutover was rolled back, that what people use again is right."""


def tables(connection: Connection) -> list[str]:
    """The names of all tables there are, PostgreSQL's own aside."""
    rows = connection.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
    ).fetchall()
    return [f"{schema}.{name}" for schema, name in rows]


@only_files_of_sql()
def drive(migration: Migration) -> None:
    """Plan to contract, with live changes in between."""
    before = migration.writes()
    assert not migration.plan().problems
    assert migration.writes() == before, "plan wrote something"

    assert migration.run(run_id="life")["state"] == "verified"
    assert migration.served() is None, "visible before the cutover"

    assert rollback(run_id="life")["state"] == "rolled_back"
    assert migration.run(run_id="life")["state"] == "verified"

    migration.change()
    assert cutover(run_id="life", gates=migration.gates)["state"] == "cut_over"
    assert migration.served() == migration.expected()

    if migration.catch_up:
        migration.change()
        assert migration.served() != migration.expected(), "the change is none"
        migration.catch_up("life")
        assert migration.served() == migration.expected()

    assert rollback(run_id="life")["state"] == "rolled_back"
    assert migration.served() is None, "still visible after the rollback"
    migration.gone_back()

    migration.change()
    assert cutover(run_id="life", gates=migration.gates)["state"] == "cut_over"
    assert migration.served() == migration.expected()

    with pytest.raises(VerificationRefused, match="rollback window"):
        contract(run_id="life")
    assert contract(run_id="life", rollback_days=0)["state"] == "contracted"
    assert migration.served() == migration.expected()
    assert contract(run_id="life", rollback_days=0)["state"] == "contracted", "contracting twice is no harm"

    if migration.catch_up and migration.lives_on:
        migration.change()
        migration.catch_up("life")
        assert migration.served() == migration.expected()
    elif migration.catch_up:
        with pytest.raises(UsageError, match="contracted"):
            migration.catch_up("life")


@only_files_of_sql()
def drive_two(first: Migration, second: Migration) -> None:
    """Two migrations of one table, the second over the first: that one serves whatever is done with the second, until that
    is cut over, and again after its rollback; and it is not taken back from under it."""
    assert first.run(run_id="first")["state"] == "verified"
    assert cutover(run_id="first", gates=first.gates)["state"] == "cut_over"
    assert first.catch_up
    assert second.catch_up

    for end in (lambda: rollback(run_id="second"), lambda: cutover(run_id="second", gates=second.gates)):
        assert second.run(run_id="second")["state"] == "verified"
        second.change()
        assert second.served() is None, "visible before the cutover"
        first.catch_up("first")
        assert first.served() == first.expected()
        end()
    assert first.served() is None
    assert second.served() == second.expected()

    with pytest.raises(UsageError, match=r"run first lies under run second.* vecferry rollback second"):
        rollback(run_id="first")
    assert second.served() == second.expected()

    second.change()
    assert rollback(run_id="second")["state"] == "rolled_back"
    first.catch_up("first")
    assert second.served() is None, "still visible after the rollback"
    assert first.served() == first.expected()

    assert cutover(run_id="second", gates=second.gates)["state"] == "cut_over"
    with pytest.raises(UsageError, match="vecferry contract first"):
        contract(run_id="second", rollback_days=0)
    assert contract(run_id="first", rollback_days=0)["state"] == "contracted"
    second.change()
    second.catch_up("second")
    assert second.served() == second.expected()

    assert contract(run_id="second", rollback_days=0)["state"] == "contracted"
    assert second.served() == second.expected()
    with pytest.raises(UsageError):
        first.catch_up("first")
    if second.lives_on:
        second.change()
        second.catch_up("second")
        assert second.served() == second.expected()
