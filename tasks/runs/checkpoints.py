"""What is done of each stage and batch of a run. A batch is marked in the transaction that writes its rows, so that neither
is ever there without the other."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, get_args

from tasks.base.errors import Stopped
from tasks.runs.dataset import part_of
from tasks.runs.details import Detail, Translated, Verified
from tasks.stores.postgres.connection import Connection, expressible

D = TypeVar("D", bound=Detail, covariant=True)
KINDS: dict[str, type[Detail]] = {kind.stage: kind for kind in get_args(Detail)}
"""Stage → what is kept of its batches; of the manifest nothing is."""


@dataclass(frozen=True)
class Batch(Generic[D]):
    """One unit of checkpoint, retry and rerun."""

    stage: str
    number: int
    status: Literal["pending", "done", "failed"]
    attempts: int
    rows: int
    quarantined: int
    error: str | None
    seconds: float
    updated_at: datetime
    detail: D

    @property
    def target(self) -> int:
        """The number of the target that it belongs to. A stage without batches has one a target."""
        return getattr(self.detail, "target", self.number)


@dataclass(frozen=True)
class Done:
    """What is noted of a batch that is done."""

    stage: str
    number: int
    _: KW_ONLY
    rows: int
    seconds: float
    quarantined: int = 0
    detail: Detail | None = None
    """None: as it was noted before."""


@dataclass(frozen=True)
class Mark:
    """What a stage writes into the ledger together with what it did: handed to the store, which sets it at the right moment."""

    connect: Callable[[], AbstractContextManager[Connection]]
    """To the ledger's database."""
    write: Callable[[Connection], object]
    is_written: Callable[[Connection], bool] = lambda _: False

    def alone(self) -> None:
        """Sets it in a transaction of its own, after a write that was acknowledged."""
        with self.connect() as connection, connection.transaction():
            self.write(connection)

    def is_set(self) -> bool:
        """Whether somebody set it meanwhile, by a look of its own."""
        with self.connect() as connection:
            return self.is_written(connection)


def mark(connect: Callable[[], AbstractContextManager[Connection]], run_id: str, line: Done, started: float) -> Mark:
    """The mark of a batch, whose work began at ``started`` by time.perf_counter; it ends when the mark is set."""
    return Mark(
        connect,
        lambda connection: done(connection, run_id, replace(line, seconds=time.perf_counter() - started)),
        lambda connection: is_done(connection, run_id, line.stage, line.number),
    )


def add(connection: Connection, run_id: str, stage: str, entries: Iterable[tuple[int, Detail | None]]) -> None:
    """Makes pending batches; those that are there stay as they are."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO vecferry.batch (run_id, stage, batch, status, detail) VALUES (%s, %s, %s, 'pending', %s::text::jsonb) "
            "ON CONFLICT DO NOTHING",
            [(run_id, stage, number, _json(detail)) for number, detail in entries],
        )


def batches(connection: Connection, run_id: str, stage: str | None = None) -> list[Batch[Any]]:
    """The run's batches, of one stage or all, in order."""
    lines = connection.execute(
        "SELECT stage, batch, status, attempts, rows, quarantined, error, seconds, updated_at, detail FROM vecferry.batch "
        "WHERE run_id = %(run_id)s AND (%(stage)s::text IS NULL OR stage = %(stage)s) ORDER BY stage, batch",
        {"run_id": run_id, "stage": stage},
        prepare=True,
    ).fetchall()
    return [Batch(*(*line[:-1], _detail(line[0], line[-1]))) for line in lines]


def of(connection: Connection, run_id: str, kind: type[D]) -> list[Batch[D]]:
    """The run's batches of the stage that keeps such details, in order."""
    return batches(connection, run_id, kind.stage)


def verified(connection: Connection, run_id: str, target: int) -> Verified:
    """What the last verification of a target came to."""
    return next((b.detail for b in of(connection, run_id, Verified) if b.number == target), Verified())


def is_done(connection: Connection, run_id: str, stage: str, number: int) -> bool:
    """Whether the batch is done; locks its row until the transaction ends, so that two workers cannot both do it."""
    row = connection.execute(
        "SELECT status FROM vecferry.batch WHERE run_id = %s AND stage = %s AND batch = %s FOR UPDATE",
        (run_id, stage, number),
    ).fetchone()
    return bool(row and row[0] == "done")


def done(connection: Connection, run_id: str, line: Done) -> None:
    """Marks a batch; call it in the transaction that wrote the rows."""
    connection.execute(
        "INSERT INTO vecferry.batch AS b (run_id, stage, batch, status, attempts, rows, quarantined, seconds, detail) "
        "VALUES (%s, %s, %s, 'done', 1, %s, %s, %s, %s::text::jsonb) ON CONFLICT (run_id, stage, batch) DO UPDATE SET "
        "status = 'done', attempts = b.attempts + 1, rows = excluded.rows, quarantined = excluded.quarantined, "
        "error = NULL, seconds = excluded.seconds, detail = b.detail || excluded.detail, updated_at = now()",
        (run_id, line.stage, line.number, line.rows, line.quarantined, line.seconds, _json(line.detail)),
    )


def failed(connection: Connection, run_id: str, stage: str, number: int, error: str) -> None:
    """Marks the batch as failed, with why."""
    connection.execute(
        "INSERT INTO vecferry.batch AS b (run_id, stage, batch, status, attempts, error) VALUES (%s, %s, %s, 'failed', 1, %s) "
        "ON CONFLICT (run_id, stage, batch) DO UPDATE SET status = 'failed', attempts = b.attempts + 1, error = excluded.error, "
        "updated_at = now() WHERE b.status <> 'done'",
        (run_id, stage, number, expressible(connection, error[:2000])),
    )


def forget_pending(connection: Connection, run_id: str, stage: str) -> None:
    """Removes the batches of a stage that nobody has done."""
    connection.execute(
        "DELETE FROM vecferry.batch WHERE run_id = %s AND stage = %s AND status = 'pending'", (run_id, stage)
    )


def reopen(connection: Connection, run_id: str, stage: str, numbers: list[int] | None = None) -> None:
    """Makes batches pending again: those named, or all of the stage."""
    connection.execute(
        "UPDATE vecferry.batch SET status = 'pending', updated_at = now() WHERE run_id = %(run_id)s AND stage = %(stage)s "
        "AND (%(numbers)s::int[] IS NULL OR batch = ANY(%(numbers)s))",
        {"run_id": run_id, "stage": stage, "numbers": numbers},
    )


def request_stop(connection: Connection, run_id: str, reason: str | None) -> None:
    """Asks every worker of the run to stop before its next batch; None takes that back."""
    connection.execute(
        "UPDATE vecferry.run SET stop = %s, updated_at = now() WHERE run_id = %s AND stop IS DISTINCT FROM %s",
        (text := reason and expressible(connection, reason), run_id, text),
    )


def check_stop(connection: Connection, run_id: str) -> None:
    """Raises Stopped when the run was asked to stop. Cancelling a Prefect task does not interrupt it; this does."""
    row = connection.execute("SELECT stop FROM vecferry.run WHERE run_id = %s", (run_id,)).fetchone()
    if row and row[0]:
        raise Stopped(row[0])


def _json(detail: Detail | None) -> str:
    return json.dumps(asdict(detail) if detail else {})


def _detail(stage: str, noted: Mapping[str, Any]) -> Detail | None:
    if stage not in KINDS:
        return None
    values = {f.name: noted[f.name] for f in fields(KINDS[stage]) if f.name in noted}
    if part := values.get("part"):
        values["part"] = part_of(part)
    if threshold := values.get("threshold"):
        values["threshold"] = Translated(**threshold)
    return KINDS[stage](**values)
