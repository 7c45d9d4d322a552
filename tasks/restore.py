"""Restore: a snapshot back into its source's kind of store, into a column beside what is there, or out as JSON lines for people."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pyarrow as pa
from prefect import task

from tasks.base import files
from tasks.base.errors import FatalError, UsageError
from tasks.base.progress import Tell, quiet
from tasks.base.retrying import RETRYING
from tasks.base.words import counted
from tasks.runs import artifacts, checkpoints, dataset, run_log
from tasks.runs.checkpoints import Done, Mark
from tasks.runs.dataset import Part
from tasks.runs.details import Restored
from tasks.runs.run import Run, open_run
from tasks.shadows.difference import Named, Refilled
from tasks.shadows.interface import Refill
from tasks.shadows.registry import refill_of
from tasks.stores import canonical
from tasks.stores.interface import Collection, records
from tasks.stores.registry import create_store

SHOWN = 3
"""Rows of a batch that are kept by name, of those that were left out."""


def restore(run: Run, into: str) -> dict[str, int]:
    """Writes the snapshot into a new store of its source's kind; returns rows a collection.

    Raises UsageError when something is there already, or no such store can be made, ChecksumError when a part is not what was written.
    """
    collections, parts = _snapshot(run)
    store, written = create_store(run.plan.request.source["store"], into), dict[str, int]()
    for collection in collections.values():
        store.create(collection)
        written[collection.name] = 0
    for target, table in _tables(run, parts):
        name = run.plan.targets[target].collection.name
        schema = records(collections[target].dimensions, others="others" in table.column_names)
        for batch in table.drop_columns(["content_hash"]).combine_chunks().to_batches():
            store.write(name, batch.cast(schema))
        written[name] += table.num_rows
    for name, rows in written.items():
        if (count := store.records(name).count()) != rows:
            raise FatalError(
                f"{into} holds {count:,} of {counted(rows, 'record')} of {name}: remove it and restore again"
            )
    return written


def export(run: Run, into: str) -> dict[str, int]:
    """Writes one ``COLLECTION.jsonl`` a collection into a folder (a directory or fsspec URL); returns rows of each."""
    collections, parts = _snapshot(run)
    written = {}
    for number, collection in collections.items():
        path = f"{into.rstrip('/')}/{collection.name}.jsonl"
        fs, local = files.located(path)
        if fs.exists(local):
            raise UsageError(f"{path} already exists: restore into another folder")
        fs.makedirs(os.path.dirname(local), exist_ok=True)
        with fs.open(local, "wb") as handle:
            written[collection.name] = 0
            for _, table in _tables(run, [p for p in parts if p.target == number]):
                handle.writelines(_line(row) for row in table.drop_columns(["content_hash"]).to_pylist())
                written[collection.name] += table.num_rows
    return written


@dataclass(frozen=True)
class Written:
    """What a snapshot became in its live tables."""

    tables: dict[str, Refilled]
    advice: tuple[str, ...]
    """What is left to do there."""


def refill(run: Run, into: str, tell: Tell = quiet) -> Written:
    """Writes the old vectors of the snapshot into a column of each of its live tables. A start that was cut off is gone on with;
    nothing of anybody's is overwritten.

    Raises UsageError where a column cannot be used, before anything is written to any of them, ChecksumError when a part is not what
    was written.
    """
    _, parts = _snapshot(run)
    refills = _refills(run, into, parts)
    _begin(run, into, refills, parts)
    with run.connection() as connection:
        left = {b.number for b in checkpoints.of(connection, run.run_id, Restored) if b.status != "done"}
    for at, part in enumerate(parts):
        if part.batch in left:
            page, note = (
                dataset.read_part(run.path("snapshot"), part),
                partial(_mark, run, part, into, time.perf_counter()),
            )
            refills[part.target].fill(page, note)
        tell((at + 1) / len(parts))
    with run.connection() as connection:
        written = [(b.rows, b.detail) for b in checkpoints.of(connection, run.run_id, Restored)]
    tables = {}
    for number in refills:
        pages = (_refilled(rows, detail) for rows, detail in written if detail.target == number)
        tables[run.plan.targets[number].collection.name] = sum(pages, Refilled())
    return Written(tables, tuple(line for refill in refills.values() if (line := refill.advice())))


def _refills(run: Run, into: str, parts: list[Part]) -> dict[int, Refill]:
    """By the numbers of the targets whose snapshot holds vectors. Raises UsageError where none does."""
    refills: dict[int, Refill] = {}
    for part in parts:
        if part.target not in refills:
            kind = dataset.read_part(run.path("snapshot"), part).schema.field("embedding").type
            if pa.types.is_fixed_size_list(kind):
                refills[part.target] = refill_of(run, run.plan.targets[part.target], into, kind.list_size)
    if not refills:
        raise UsageError(f"the snapshot of run {run.run_id} holds no vectors")
    return refills


def _begin(run: Run, into: str, refills: dict[int, Refill], parts: list[Part]) -> None:
    """Makes the columns, once all of them can be used, and the batches; those of a column that is empty are to be done, whatever the
    ledger says of them."""
    with run.connection() as connection:
        begun = {b.detail.target for b in checkpoints.of(connection, run.run_id, Restored) if b.detail.into == into}
    empty = {number for number, refill in refills.items() if refill.is_empty(number in begun)}
    with run.connection() as connection, connection.transaction():
        checkpoints.reopen(connection, run.run_id, Restored.stage, [p.batch for p in parts if p.target in empty])
        checkpoints.forget_pending(connection, run.run_id, Restored.stage)
        every = [(p.batch, Restored(p.target, into)) for p in parts if p.target in refills]
        checkpoints.add(connection, run.run_id, Restored.stage, every)
    for refill in refills.values():
        refill.make()


def _mark(run: Run, part: Part, into: str, started: float, filled: Refilled) -> Mark:
    gone, changed, taken = filled.gone, filled.changed, filled.taken
    firsts = [rows.ids[:SHOWN] for rows in (gone, changed, taken)]
    detail = Restored(part.target, into, gone.count, changed.count, taken.count, *firsts)
    done = Done(Restored.stage, part.batch, rows=filled.restored, seconds=0.0, detail=detail)
    return checkpoints.mark(run.connection, run.run_id, done, started)


def _refilled(rows: int, detail: Restored) -> Refilled:
    counts = (detail.gone, detail.changed, detail.taken)
    firsts = (detail.first_gone, detail.first_changed, detail.first_taken)
    return Refilled(rows, *(Named(count, tuple(first)) for count, first in zip(counts, firsts, strict=True)))


def _snapshot(run: Run) -> tuple[dict[int, Collection], list[Part]]:
    _, parts = dataset.read_manifest(run.path("snapshot"))
    kept = {part.target for part in parts}
    return {t.number: t.collection for t in run.plan.targets if t.place.loads or t.number in kept}, parts


def _tables(run: Run, parts: list[Part]) -> Iterator[tuple[int, pa.Table]]:
    for part in parts:
        yield part.target, dataset.read_part(run.path("snapshot"), part)


def _line(row: dict[str, Any]) -> bytes:
    parsed = {name: canonical.loads(row[name]) for name in ("metadata", "others") if name in row}
    return json.dumps({**row, **parsed}, ensure_ascii=False).encode() + b"\n"


@task(name="restore-column", task_run_name="restore {run_id} into {into}", **RETRYING)
def refill_task(run_id: str, database: str, into: str, bar: UUID | None) -> Written:
    run = open_run(run_id, database)
    with artifacts.telling(run, bar) as tell, run_log.stage(run_id, "restore") as entry, run.refusable("restore"):
        written = refill(run, into, tell)
        entry.rows = sum(filled.restored for filled in written.tables.values())
    return written


@task(name="restore", task_run_name="restore {run_id} into {into}", **RETRYING)
def restore_task(run_id: str, database: str, into: str, jsonl: bool) -> dict[str, int]:
    run = open_run(run_id, database)
    with run_log.stage(run_id, "restore") as entry:
        written = export(run, into) if jsonl else restore(run, into)
        entry.rows = sum(written.values())
    return written
