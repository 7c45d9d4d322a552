"""Rows that a place cannot store or a model has no vector for, each with its class and message, kept as Parquet and never lost
silently."""

import pyarrow as pa

from tasks.base import files
from tasks.runs.dataset import encode
from tasks.runs.run import Run


def keep(run: Run, stage: str, batch: int, rejected: pa.Table) -> str:
    """Writes the rejected rows of a batch and returns where."""
    path = run.path("quarantine", f"{stage}-{batch:05d}.parquet")
    files.write(path, encode(rejected))
    return path


def keep_page(run: Run, target: int, rejected: pa.Table) -> str:
    """The same for a page of catching up, which has no number: it is known by the first of its ids."""
    first = rejected.column("id")[0].as_py()
    return keep(run, f"catch_up-{target}-{first.encode().hex()[:40]}", rejected.num_rows, rejected)
