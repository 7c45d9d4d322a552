"""What a run has come to, in the words of the command line: from the ledger alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from tasks.base import files, settings
from tasks.runs import checkpoints, ledger, manifest, run_log, spending
from tasks.runs.checkpoints import Batch
from tasks.runs.commands import command, resumption
from tasks.runs.details import Followed, Verified
from tasks.runs.ledger import RunRecord
from tasks.runs.outcome import Later, Outcome, TargetOutcome, Touched
from tasks.runs.plan import Plan, Target
from tasks.runs.waiting import Waiting, waiting
from tasks.stores.postgres.connection import Connection

SWITCHES = ("cutover", "rollback", "contract")
"""Verbs that change what people use."""
STAGES = ("list", "snapshot", "load", "index", "catch_up", "verify", "restore")


def outcome(connection: Connection, run_id: str) -> Outcome:
    """What the run has come to. Raises UsageError when there is no such run."""
    record = ledger.get(connection, run_id)
    batches = checkpoints.batches(connection, run_id)
    step, plan, spent = next_step(record, batches), record.plan, spending.spending(connection, run_id)
    return Outcome(
        run_id=run_id,
        flow=plan.request.flow,
        database=plan.request.database,
        source=place(plan),
        state=record.state,
        now=now(record),
        exit=record.exit_status,
        error=record.error,
        targets=tuple(
            _target(target, [b for b in batches if b.target == target.number], waiting(connection, target.place))
            for target in plan.targets
        ),
        gates=record.gates,
        spent=spent if spent.requests else None,
        started=record.created_at,
        changed=record.updated_at,
        seconds=round(sum(b.seconds for b in batches), 2),
        snapshot=_snapshot(plan, batches),
        report=record.report,
        log=run_log.there(run_id, settings.home()),
        next=step.now,
        later=Later(step.later, step.since) if step.later else None,
    )


def _target(target: Target[Any], batches: list[Batch[Any]], queue: Waiting | None) -> TargetOutcome:
    """What has become of a target, by its own batches."""
    followed = next((b.detail for b in batches if b.stage == "catch_up"), Followed())
    verified = next((b for b in batches if b.stage == "verify"), None)
    failed = {b.number for b in batches if b.status == "failed" and b.stage in ("snapshot", "load")}
    rows = verified.rows if verified else target.collection.count
    return TargetOutcome(
        name=target.collection.name,
        table=target.name,
        kind=target.place.kind,
        loads=target.place.loads,
        rows=rows,
        loaded=sum(b.rows for b in batches if b.stage == "load" and b.status == "done"),
        touched=Touched(followed.inserted, followed.updated, followed.deleted),
        quarantined=_quarantined(batches),
        failed_batches=tuple(sorted(failed)),
        dimensions=target.dimensions,
        shape=target.place.shape(rows),
        queue=queue,
    )


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
    server = f"{source['host']}:{source['port']}" if source.get("host") else None
    named = next((str(source[key]) for key in ("path", "url", "name") if source.get(key)), server)
    return f"{source['store'].replace('_', ' ')} " + (named or ", ".join(t.collection.name for t in plan.targets))


def _snapshot(plan: Plan, batches: list[Batch[Any]]) -> str | None:
    """Where the run's snapshot lies; None before it is complete, and of a run of 0.1.0, which did not note that."""
    written = any(b.stage == manifest.STAGE and b.status == "done" for b in batches)
    return files.join(settings.home(), "runs", plan.run_id, "snapshot") if written else None


@dataclass(frozen=True)
class Stage:
    """How far a stage is."""

    name: str
    done: int
    """Batches, as the next two."""
    pending: int
    failed: int
    rows: int
    quarantined: int
    seconds: float
    """Of work."""


def stages(connection: Connection, run_id: str) -> list[Stage]:
    """The stages that have begun, in order."""
    batches = checkpoints.batches(connection, run_id)
    return [_stage(stage, own) for stage in STAGES if (own := [b for b in batches if b.stage == stage])]


def _stage(name: str, batches: list[Batch[Any]]) -> Stage:
    done, pending, failed = (sum(b.status == status for b in batches) for status in ("done", "pending", "failed"))
    return Stage(
        name,
        done,
        pending,
        failed,
        rows=sum(b.rows for b in batches),
        quarantined=sum(b.quarantined for b in batches),
        seconds=round(sum(b.seconds for b in batches), 2),
    )


@dataclass(frozen=True)
class Step:
    """What to do next with a run."""

    now: str | None = None
    """A command that works now."""
    later: str | None = None
    """One that will work."""
    since: datetime | None = None
    """From when on; None: when what goes on now has ended."""


def next_step(record: RunRecord, batches: list[Batch[Any]]) -> Step:
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
    if record.state == "verified" and any(target.place.partial for target in record.plan.targets):
        return Step(of_run("catch-up"))
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


@dataclass(frozen=True)
class ActiveSpace:
    """Which vectors of a live table are meant now."""

    table: str
    column: str
    dimensions: int
    space: str


def active_spaces(connection: Connection, plan: Plan) -> Iterator[ActiveSpace]:
    """What is meant now of the live tables of a plan."""
    if connection.execute("SELECT to_regclass('vecferry.active_space')").fetchone() == (None,):
        return
    for target in plan.targets:
        if target.place.queue:
            row = connection.execute(
                "SELECT column_name, dimensions, space FROM vecferry.active_space WHERE table_schema || '.' || table_name = %s",
                (target.collection.name,),
            ).fetchone()
            if row:
                yield ActiveSpace(target.collection.name, *row)


def failures(connection: Connection, run_id: str) -> list[Batch[Any]]:
    """The failed batches."""
    return [b for b in checkpoints.batches(connection, run_id) if b.status == "failed"]


def _quarantined(batches: list[Batch[Any]]) -> int:
    """Rows set aside as verification counted them; before it, those that the load or a sync set aside."""
    details = {b.stage: b.detail for b in batches if b.status == "done"}
    verified, followed = details.get("verify", Verified()), details.get("catch_up", Followed())
    if verified.quarantined is not None:
        return int(verified.quarantined)
    return sum(b.quarantined for b in batches if b.stage == "load") or int(followed.quarantined)
