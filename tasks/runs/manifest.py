"""What is known of a snapshot as a whole: its manifest, and the ledger's line of it.

The line is pending where a snapshot alone was asked for and is not there yet, and done where the manifest is written.
"""

from datetime import UTC
from typing import Any

from tasks.base.errors import UsageError
from tasks.runs import checkpoints, dataset
from tasks.runs.checkpoints import Batch
from tasks.runs.dataset import Part
from tasks.runs.details import Listed
from tasks.runs.plan import Plan
from tasks.runs.run import Run
from tasks.stores.postgres.connection import Connection

STAGE = "manifest"


def ask_for(connection: Connection, run_id: str) -> None:
    """Notes that the snapshot is to be made, and nothing more for now."""
    checkpoints.add(connection, run_id, STAGE, [(0, None)])


def ask_for_more(connection: Connection, run_id: str) -> None:
    """Notes that the migration goes on after the snapshot."""
    checkpoints.forget_pending(connection, run_id, STAGE)


def is_asked_for(batches: list[Batch]) -> bool:
    """Whether the snapshot alone was asked for and is not there, by the batches of its run."""
    return any(b.stage == STAGE and b.status != "done" for b in batches)


def is_finished(connection: Connection, plan: Plan) -> bool:
    """Whether the manifest is written, and every target is in it."""
    line = checkpoints.batches(connection, plan.run_id, STAGE)
    written = any(b.status == "done" for b in line) or has_loaded(connection, plan)  # 0.1.0 noted no manifest
    return written and listed(connection, plan) == {t.number for t in plan.targets}


def has_loaded(connection: Connection, plan: Plan) -> bool:
    """Whether the migration has gone on from its snapshot."""
    return bool(checkpoints.batches(connection, plan.run_id, "load"))


def listed(connection: Connection, plan: Plan) -> set[int]:
    """The targets whose ids were listed."""
    return {b.number % len(plan.targets) for b in checkpoints.batches(connection, plan.run_id, "list")}


def listings_alone(connection: Connection, plan: Plan) -> int:
    """How many listings were begun for a snapshot alone. What was written at the source between them and the making of the
    place for the new vectors is noted nowhere, so it is for another listing to find it."""
    alone = [b.number for b in checkpoints.of(connection, plan.run_id, Listed) if b.detail.alone]
    return 1 + max(alone) // len(plan.targets) if alone else 0


def write(run: Run, connection: Connection, parts: list[Part]) -> None:
    """Writes the manifest. ``begin`` and ``end`` are moments of the database's clock: what the snapshot says was read from
    the source between them."""
    row = connection.execute(
        "SELECT min(updated_at - make_interval(secs => seconds)) FILTER (WHERE stage = 'list'), "
        "coalesce(max(updated_at) FILTER (WHERE stage = 'snapshot'), max(updated_at)) "
        "FROM vecferry.batch WHERE run_id = %s AND stage IN ('list', 'snapshot')",
        (run.run_id,),
    ).fetchone()
    assert row
    begin, end = (moment and moment.astimezone(UTC).isoformat() for moment in row)
    there = listed(connection, run.plan)
    content = {
        "run_id": run.run_id,
        "source": run.plan.request.source,
        "source_version": run.source(fresh=False).version(),
        "begin": begin,
        "end": end,
        "collections": [t.collection.as_json() for t in run.plan.targets if t.place.loads or t.number in there],
        "limit": run.plan.request.limit,
    }
    dataset.write_manifest(run.path("snapshot"), content, parts)


def kept_parts(run: Run) -> list[Part] | None:
    """The parts of the manifest there is; None where there is none, or one of 0.1.0, which says less."""
    try:
        content, parts = dataset.read_manifest(run.path("snapshot"))
    except UsageError:
        return None
    return parts if "source_version" in content else None


def summary(run: Run) -> dict[str, Any]:
    """What the manifest of a finished snapshot says, its parts in numbers, and where it lies."""
    content, parts = dataset.read_manifest(run.path("snapshot"))
    rows = {t.collection.name: sum(p.rows for p in parts if p.target == t.number) for t in run.plan.targets}
    return {
        "path": run.path("snapshot"),
        **{name: content.get(name) for name in ("begin", "end", "source_version")},
        "parts": len(parts),
        "rows": rows,
    }
