"""What a run has come to, in the words of the command line: from the ledger alone."""

from collections.abc import Iterator
from typing import Any

from tasks import ledger, spending
from tasks.ledger import Batch, RunRecord
from tasks.plan import ColumnTarget, Plan
from tasks.settings import DEFAULT_DATABASE
from tasks.stores.connection import Connection

STAGES = ("list", "snapshot", "load", "index", "catch_up", "verify")


def outcome(connection: Connection, run_id: str) -> dict[str, Any]:
    """The object that ``--json`` prints. Raises UsageError when there is no such run."""
    record = ledger.get(connection, run_id)
    batches = ledger.batches(connection, run_id)
    targets: list[dict[str, Any]] = []
    for target in record.plan.targets:
        mine = [b for b in batches if _target(b) == target.number]
        loaded = sum(b.rows for b in mine if b.stage == "load" and b.status == "done")
        synced = next((b.detail for b in mine if b.stage == "catch_up"), {})
        verified = next((b for b in mine if b.stage == "verify"), None)
        targets.append(
            {
                "name": target.collection.name,
                "table": target.name,
                "mode": target.mode,
                "rows": verified.rows if verified else target.collection.count,
                "loaded": loaded,
                "touched": {k: synced.get(k, 0) for k in ("inserted", "updated", "deleted")},
                "quarantined": _quarantined(mine),
                "failed_batches": sorted(
                    {b.number for b in mine if b.status == "failed" and b.stage in ("snapshot", "load")}
                ),
                "dimensions": target.dimensions,
            }
        )
    return {
        "run_id": run_id,
        "flow": record.plan.request.flow,
        "state": record.state,
        "exit": record.exit_status,
        "targets": targets,
        "spent": _spent(connection, run_id),
        "report": record.report,
        "next": next_step(record, [b for t in targets for b in t["failed_batches"]]),
    }


def _spent(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """What the run has bought and did not have to; None where its model costs nothing."""
    found = spending.spending(connection, run_id)
    return {**vars(found), "saved": found.saved} if found.requests else None


def stages(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """A line a stage: how many batches are done, pending and failed, with rows and seconds of work."""
    batches = ledger.batches(connection, run_id)
    lines = []
    for stage in STAGES:
        if mine := [b for b in batches if b.stage == stage]:
            lines.append(
                {
                    "stage": stage,
                    **{s: sum(b.status == s for b in mine) for s in ("done", "pending", "failed")},
                    "rows": sum(b.rows for b in mine),
                    "quarantined": sum(b.quarantined for b in mine),
                    "seconds": round(sum(b.seconds for b in mine), 2),
                }
            )
    return lines


def next_step(record: RunRecord, failed: list[int]) -> str | None:
    """The command to type now; None when there is nothing to do."""
    command = _next(record, failed)
    database = record.plan.request.database
    return command and (command if database == DEFAULT_DATABASE else f"{command} -p database={database}")


def _next(record: RunRecord, failed: list[int]) -> str | None:
    run_id, again = record.run_id, f"vecferry run {record.plan.request.flow} --run-id {record.run_id}"
    if record.state in ("planned", "running", "failed"):
        return f"vecferry rerun {run_id}" if failed else again
    if record.state == "verified":
        return None if record.plan.limited else f"vecferry cutover {run_id}"
    if record.state == "cut_over":
        return f"vecferry contract {run_id}"
    return again if record.state == "rolled_back" else None


def active_spaces(connection: Connection, plan: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """The live tables of a plan, each with the column, dimensions and space that are meant now."""
    if connection.execute("SELECT to_regclass('vecferry.active_space')").fetchone() == (None,):
        return
    for target in plan.targets:
        if isinstance(target, ColumnTarget):
            row = connection.execute(
                "SELECT column_name, dimensions, space FROM vecferry.active_space WHERE table_schema = %s AND table_name = %s",
                (target.schema, target.table),
            ).fetchone()
            if row:
                yield f"{target.schema}.{target.table}", dict(zip(("column", "dimensions", "space"), row, strict=True))


def failures(connection: Connection, run_id: str) -> list[Batch]:
    """The failed batches."""
    return [b for b in ledger.batches(connection, run_id) if b.status == "failed"]


def _quarantined(batches: list[Batch]) -> int:
    """Rows set aside as verification found them; before it, those that the load or a sync set aside."""
    details = {b.stage: b.detail for b in batches if b.status == "done"}
    if "quarantined" in details.get("verify", {}):
        return int(details["verify"]["quarantined"])
    loaded = sum(b.quarantined for b in batches if b.stage == "load")
    return loaded or int(details.get("catch_up", {}).get("quarantined", 0))


def _target(batch: Batch) -> int:
    return int(batch.detail.get("target", batch.number))
