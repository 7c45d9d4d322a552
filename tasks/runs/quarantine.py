"""Rows that a place cannot store or a model has no vector for, each with its class and message, kept as Parquet and never lost
silently."""

import io
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.base import files
from tasks.base.words import agreeing
from tasks.runs import checkpoints
from tasks.runs.commands import command, resumption
from tasks.runs.dataset import encode
from tasks.runs.details import Loaded
from tasks.runs.run import Run

SHOWN = 3
"""Rows whose reasons are told; those of all are in the folder."""
WORDS = 240
"""Characters of a reason that are told."""
_OF_BATCH = re.compile(r"load-0*(\d+)\.parquet")


def keep(run: Run, stage: str, batch: int, rejected: pa.Table) -> str:
    """Writes the rejected rows of a batch and returns where."""
    path = run.path("quarantine", f"{stage}-{batch:05d}.parquet")
    files.write(path, encode(rejected))
    return path


def keep_page(run: Run, target: int, rejected: pa.Table) -> str:
    """The same for a page of catching up, which has no number: it is known by the first of its ids."""
    first = rejected.column("id")[0].as_py()
    return keep(run, f"catch_up-{target}-{first.encode().hex()[:40]}", rejected.num_rows, rejected)


def reasons(run: Run, target: int, ids: Sequence[str], count: int) -> list[str]:
    """Why the first of these rows of a target are set aside, ``count`` in all, and how to go on with them; nothing where there are
    none."""
    told = list(_reasons(run, target, ids[:SHOWN]))
    if not told:
        return []
    batches = sorted({batch for _, batch in told if batch is not None})
    rerun = " ".join(
        [command("rerun", run.run_id, run.plan.request.database), *(f"--batch {batch}" for batch in batches)]
    )
    tries = f", or {rerun} to have {agreeing(count, 'them')} tried as before" if batches else ""
    change = f"To go on: change what {'it says' if count == 1 else 'they say'}, then {resumption(run.plan)}"
    return [*(reason for reason, _ in told), f"{change}{tries}. What was set aside is in {run.path('quarantine')}"]


def _reasons(run: Run, target: int, ids: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """Of each row why it is set aside, and in which batch; None where that was while catching up."""
    left, folder = set(ids), run.path("quarantine")
    with run.connection() as connection:
        loaded = {b.number for b in checkpoints.of(connection, run.run_id, Loaded) if b.detail.target == target}
    for name in files.names(folder) if left else ():
        batch = int(of_batch[1]) if (of_batch := _OF_BATCH.fullmatch(name)) else None
        if not left or not (batch in loaded or name.startswith(f"catch_up-{target}-")):
            continue
        rows = pq.read_table(io.BytesIO(files.read(files.join(folder, name))), columns=["id", "class", "message"])
        for row in rows.filter(pc.is_in(rows["id"], pa.array(left, rows["id"].type))).to_pylist():
            left.discard(row["id"])
            yield f"row {row['id'][:40]!r}: {row['class']}, {row['message'][:WORDS]}", batch
