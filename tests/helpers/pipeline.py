"""A whole migration by plain functions, stage after stage, without Prefect."""

from typing import Any

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from flows.forms.shared import Migration
from tasks import snapshot
from tasks.base import settings
from tasks.begin import begin
from tasks.catch_up import catch_up
from tasks.checks.gates import Gates
from tasks.checks.report import TargetReport
from tasks.cutover import cutover
from tasks.index import index
from tasks.load import expand, key, load, prepare
from tasks.runs import checkpoints, ledger
from tasks.runs.run import Run, open_run
from tasks.verify import verify


def gates(**changed: Any) -> Gates:
    """The gates of the flow's form, save for those named."""
    return Gates(**{**ChromaToPgvector().gates.model_dump(), **changed})


def build(run_id: str, kind: type[Migration] = ChromaToPgvector, **parameters: Any) -> Run:
    """Snapshot, load, index and catch up; ``parameters`` are those of the form ``kind``. Nobody reads the new vectors yet."""
    form = parse(kind, parameters)
    begin(form.request(), run_id, form.given())
    run = open_run(run_id, settings.DEFAULT_DATABASE)
    expand(run)
    for listing in range(snapshot.ROUNDS):
        if not snapshot.list_ids(run, listing):
            break
        assert not snapshot.snapshot(run, _pending(run, "snapshot")).failed
    snapshot.finish(run)
    prepare(run)
    tally = load(run, _pending(run, "load"))
    assert not tally.failed, [b.error for b in _batches(run, "load")]
    key(run)
    for target in run.plan.targets:
        index(run, target.number)
        catch_up(run, target.number, max_deleted=0.5)
    return run


def finish(run: Run, **changed: Any) -> list[TargetReport]:
    """Verifies with the gates ``changed`` and cuts over."""
    verification = verify(run, gates(**changed), passes=None)
    verification.refuse()
    with run.connection() as connection:
        ledger.set_state(connection, run.run_id, "verified")
    cutover(run)
    return verification.targets


def quarantined(run: Run) -> int:
    """Rows that the ledger says the load set aside."""
    return sum(b.quarantined for b in _batches(run, "load"))


def _batches(run: Run, stage: str) -> list[checkpoints.Batch[Any]]:
    with run.connection() as connection:
        return checkpoints.batches(connection, run.run_id, stage)


def _pending(run: Run, stage: str) -> list[int]:
    return [b.number for b in _batches(run, stage) if b.status != "done"]
