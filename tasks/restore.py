"""Restore: a snapshot back into its source's kind of store, or out as JSON lines for people."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from prefect import task

from tasks.base import files
from tasks.base.errors import FatalError, UsageError
from tasks.base.retrying import RETRYING
from tasks.base.words import counted
from tasks.runs import dataset, run_log
from tasks.runs.dataset import Part
from tasks.runs.run import Run, open_run
from tasks.stores import canonical
from tasks.stores.interface import Collection, records
from tasks.stores.registry import create_store


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
        for batch in table.drop_columns(["content_hash"]).combine_chunks().to_batches():
            store.write(name, batch.cast(records(collections[target].dimensions)))
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


def _snapshot(run: Run) -> tuple[dict[int, Collection], list[Part]]:
    _, parts = dataset.read_manifest(run.path("snapshot"))
    kept = {part.target for part in parts}
    return {t.number: t.collection for t in run.plan.targets if t.place.loads or t.number in kept}, parts


def _tables(run: Run, parts: list[Part]) -> Iterator[tuple[int, pa.Table]]:
    for part in parts:
        yield part.target, dataset.read_part(run.path("snapshot"), part)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps({**row, "metadata": canonical.loads(row["metadata"])}, ensure_ascii=False).encode() + b"\n"


@task(name="restore", task_run_name="restore {run_id} into {into}", **RETRYING)
def restore_task(run_id: str, database: str, into: str, jsonl: bool) -> dict[str, int]:
    run = open_run(run_id, database)
    with run_log.stage(run_id, "restore") as entry:
        written = export(run, into) if jsonl else restore(run, into)
        entry.rows = sum(written.values())
    return written
