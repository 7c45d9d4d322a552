"""What a run has come to, in the words of the command line: from the ledger alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from tasks.base import files, settings
from tasks.base.words import counted
from tasks.runs import checkpoints, ledger, manifest, run_log, spending
from tasks.runs.checkpoints import Batch
from tasks.runs.commands import command, resumption
from tasks.runs.ledger import RunRecord
from tasks.runs.plan import Plan
from tasks.stores.postgres.connection import Connection

SWITCHES = ("cutover", "rollback", "contract")
"""Verbs that change what people use."""
STAGES = ("list", "snapshot", "load", "index", "catch_up", "verify")


def outcome(connection: Connection, run_id: str) -> dict[str, Any]:
    """The object that ``--json`` prints. Raises UsageError when there is no such run."""
    record = ledger.get(connection, run_id)
    batches = checkpoints.batches(connection, run_id)
    targets: list[dict[str, Any]] = []
    for target in record.plan.targets:
        own = [b for b in batches if _target(b) == target.number]
        loaded = sum(b.rows for b in own if b.stage == "load" and b.status == "done")
        synced = next((b.detail for b in own if b.stage == "catch_up"), {})
        verified = next((b for b in own if b.stage == "verify"), None)
        targets.append(
            {
                "name": target.collection.name,
                "table": target.name,
                "mode": target.place.kind,
                "rows": verified.rows if verified else target.collection.count,
                "loaded": loaded,
                "touched": {k: synced.get(k, 0) for k in ("inserted", "updated", "deleted")},
                "quarantined": _quarantined(own),
                "failed_batches": sorted(
                    {b.number for b in own if b.status == "failed" and b.stage in ("snapshot", "load")}
                ),
                "dimensions": target.dimensions,
            }
        )
    step = next_step(record, batches)
    return {
        "run_id": run_id,
        "flow": record.plan.request.flow,
        "source": place(record.plan),
        "state": record.state,
        "now": now(record),
        "exit": record.exit_status,
        "error": record.error,
        "targets": targets,
        "gates": record.gates,
        "spent": _spent(connection, run_id),
        "started": _iso(record.created_at),
        "changed": _iso(record.updated_at),
        "seconds": round(sum(b.seconds for b in batches), 2),
        "snapshot": _snapshot(record.plan, batches),
        "report": record.report,
        "log": run_log.there(run_id, settings.home()),
        "next": step.now,
        "later": step.later and {"command": step.later, "from": step.since and _iso(step.since)},
    }


def changes(target: dict[str, Any]) -> str:
    """What catching up did to one target of an outcome: ``1 inserted, 5 updated``, or ``0 changed``."""
    return ", ".join(f"{count:,} {what}" for what, count in target["touched"].items() if count) or "0 changed"


def sentence(target: dict[str, Any]) -> str:
    """What the run did to one target of an outcome, for people."""
    touched = changes(target)
    if target["mode"] == "sync":
        what = f"synced in place, {touched}"
    else:
        what = f"{counted(target['loaded'], 'row')} loaded" + (
            "" if touched == "0 changed" else f"; caught up, {touched}"
        )
    return f"{target['name']} → {target['table']}: {what}"


def now(record: RunRecord) -> str | None:
    """What goes on with the run at this moment: ``running``, ``waiting for approval``, ``killed`` or ``switching``; None
    when nobody works on it and nobody has to."""
    # Who waits holds the run; or is suspended, and has left nothing undone.
    if record.waiting and record.state == "verified" and (record.at_work or record.doing is None):
        return "waiting for approval"
    if record.at_work:
        return "switching" if record.doing in SWITCHES else "running"
    return "killed" if record.state == "running" else None


def done(connection: Connection, run_id: str, verb: ledger.Verb, since: datetime) -> bool:
    """Whether the ledger says that ``verb``, which began at ``since`` by the server's clock, has done its work."""
    record = ledger.get(connection, run_id)
    if verb == "snapshot":
        return manifest.is_finished(connection, record.plan)
    if verb in ("catch-up", "verify"):
        return _fresh(connection, record.plan, verb.replace("-", "_"), since)
    if verb == "rollback":
        return record.state == "rolled_back"
    if verb == "contract":
        return record.state == "contracted"
    if record.switched:
        # A run that follows its source and was switched before is caught up by these verbs, if it is run.
        new = record.cut_over_at is not None and record.cut_over_at >= since
        followed = verb == "run" and record.plan.followed
        return new or not followed or _fresh(connection, record.plan, "catch_up", since)
    verified = record.state == "verified" and _fresh(connection, record.plan, "verify", since)
    return verified and (record.plan.limited or (verb == "run" and _loads(record.plan)))


def is_checked(connection: Connection, run_id: str, since: datetime) -> bool:
    """Whether the run's report was made since then."""
    return any(b.stage == "verify" and b.updated_at >= since for b in checkpoints.batches(connection, run_id))


def _fresh(connection: Connection, plan: Plan, stage: str, since: datetime) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM vecferry.batch WHERE run_id = %s AND stage = %s AND status = 'done' AND updated_at >= %s "
        "AND coalesce((detail ->> 'passed')::boolean, true)",
        (plan.run_id, stage, since),
    ).fetchone()
    return bool(row and row[0] == len(plan.targets))


def place(plan: Plan) -> str:
    """Where the run reads, for people."""
    source = plan.request.source
    if source["store"] == "live_tables":
        return "live tables " + ", ".join(t.collection.name for t in plan.targets)
    return f"{source['store']} " + str(source.get("path") or f"{source.get('host')}:{source.get('port')}")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _spent(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """What the run has bought and did not have to; None where its model costs nothing."""
    spent = spending.spending(connection, run_id)
    return {**vars(spent), "saved": spent.saved} if spent.requests else None


def _snapshot(plan: Plan, batches: list[Batch]) -> str | None:
    """Where the run's snapshot lies; None before it is complete, and of a run of 0.1.0, which did not note that."""
    written = any(b.stage == manifest.STAGE and b.status == "done" for b in batches)
    return files.join(settings.home(), "runs", plan.run_id, "snapshot") if written else None


def stages(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """A line a stage: how many batches are done, pending and failed, with rows and seconds of work."""
    batches = checkpoints.batches(connection, run_id)
    lines = []
    for stage in STAGES:
        if own := [b for b in batches if b.stage == stage]:
            lines.append(
                {
                    "stage": stage,
                    **{s: sum(b.status == s for b in own) for s in ("done", "pending", "failed")},
                    "rows": sum(b.rows for b in own),
                    "quarantined": sum(b.quarantined for b in own),
                    "seconds": round(sum(b.seconds for b in own), 2),
                }
            )
    return lines


@dataclass(frozen=True)
class Step:
    """What to do next with a run."""

    now: str | None = None
    """A command that works now."""
    later: str | None = None
    """One that will work."""
    since: datetime | None = None
    """From when on; None: when what goes on now has ended."""


def next_step(record: RunRecord, batches: list[Batch]) -> Step:
    """The command to type now or later; neither when there is nothing to do."""
    of_run = partial(command, run_id=record.run_id, database=record.plan.request.database)
    if record.at_work:
        return Step(later=of_run("status"))
    resume, switch = resumption(record.plan), of_run("cutover")
    built = any(b.stage == "index" and b.status == "done" for b in batches) or not _loads(record.plan)
    if record.state == "running" and record.doing == "cutover" and built:
        return Step(switch)
    if record.state in ("planned", "running", "failed"):
        if record.doing == "snapshot" or manifest.is_asked_for(batches):
            return Step(resumption(record.plan, "snapshot"))
        failed = any(b.status == "failed" and b.stage in ("snapshot", "load") for b in batches)
        return Step(of_run("rerun") if failed else resume)
    if record.state == "verified":
        return Step(of_run("rollback") if record.plan.limited else switch)
    if record.state == "rolled_back":
        return Step(switch if built and not record.plan.limited else resume)
    if record.state == "cut_over":
        assert record.cut_over_at
        opens = record.cut_over_at + timedelta(days=record.plan.request.rollback_days)
        contract = of_run("contract")
        return Step(contract) if opens <= datetime.now(UTC) else Step(later=contract, since=opens)
    return Step()


def _loads(plan: Plan) -> bool:
    """Whether there is anything to build: a sync has nothing."""
    return any(target.place.loads for target in plan.targets)


def active_spaces(connection: Connection, plan: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """The live tables of a plan, each with the column, dimensions and space that are meant now."""
    if connection.execute("SELECT to_regclass('vecferry.active_space')").fetchone() == (None,):
        return
    for target in plan.targets:
        if target.place.rows:
            row = connection.execute(
                "SELECT column_name, dimensions, space FROM vecferry.active_space WHERE table_schema || '.' || table_name = %s",
                (target.collection.name,),
            ).fetchone()
            if row:
                yield target.collection.name, dict(zip(("column", "dimensions", "space"), row, strict=True))


def failures(connection: Connection, run_id: str) -> list[Batch]:
    """The failed batches."""
    return [b for b in checkpoints.batches(connection, run_id) if b.status == "failed"]


def _quarantined(batches: list[Batch]) -> int:
    """Rows set aside as verification found them; before it, those that the load or a sync set aside."""
    details = {b.stage: b.detail for b in batches if b.status == "done"}
    if "quarantined" in details.get("verify", {}):
        return int(details["verify"]["quarantined"])
    loaded = sum(b.quarantined for b in batches if b.stage == "load")
    return loaded or int(details.get("catch_up", {}).get("quarantined", 0))


def _target(batch: Batch) -> int:
    return int(batch.detail.get("target", batch.number))
