"""The log of a run: one JSON object a line in VECFERRY_HOME/logs/RUN.jsonl, for people and programs that read logs.

A line says what has ended: {"time", "stage", "batch", "rows", "seconds", "error", "message"}. It is written after the
commit, so that it claims nothing that the ledger, which is the record, does not know. A directory is appended to, a line a
write, from whichever threads and processes work on the run. An object store cannot append: there each process keeps an
object of its own, logs/RUN/TIME-PID.jsonl.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from tasks.base import files, settings
from tasks.base.error_messages import safe

FLUSH = 10.0
"""Seconds after which lines of batches reach an object store at the latest: each time the whole object is written."""

logger = logging.getLogger("vecferry")


@dataclass
class Entry:
    """What the line of a piece of work will say."""

    rows: int | None = None


@dataclass
class _Object:
    """What this process has written to an object store."""

    path: str
    lines: list[bytes] = field(default_factory=list)
    flushed: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def path(run_id: str, home: str) -> str:
    """Where the log of a run is: a file, or in an object store the folder of its objects."""
    return files.join(home, "logs", run_id if "://" in home else f"{run_id}.jsonl")


def there(run_id: str, home: str) -> str | None:
    """The same; None where a directory holds none, as for runs of 0.1.0."""
    named = path(run_id, home)
    return named if "://" in home or os.path.exists(named) else None


@contextmanager
def stage(run_id: str, name: str, batch: int | None = None) -> Iterator[Entry]:
    """Writes a line when the body has ended, with its error where it raised one."""
    started, entry = time.perf_counter(), Entry()
    try:
        yield entry
    except BaseException as error:
        note(run_id, name, batch, seconds=time.perf_counter() - started, error=error)
        raise
    note(run_id, name, batch, rows=entry.rows, seconds=time.perf_counter() - started)


def note(
    run_id: str,
    stage: str,
    batch: int | None = None,
    *,
    rows: int | None = None,
    seconds: float | None = None,
    error: BaseException | None = None,
    home: str | None = None,
) -> None:
    """Writes a line, under ``home`` or that of this process. A log that cannot be written stops no run: that is a warning."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "stage": stage,
        "batch": batch,
        "rows": rows,
        "seconds": None if seconds is None else round(seconds, 3),
        "error": error and type(error).__name__,
        "message": error and safe(error),
    }
    data, home = json.dumps(line, ensure_ascii=False).encode() + b"\n", home or settings.home()
    try:
        if "://" in home:
            _keep(_object(path(run_id, home)), data, at_once=batch is None or error is not None)
        else:
            files.append(path(run_id, home), data)
    except Exception as problem:  # noqa: BLE001  whatever a file system or an object store raises
        logger.warning("the log of run %s was not written: %s", run_id, problem)


def _keep(kept: _Object, data: bytes, at_once: bool) -> None:
    with kept.lock:
        kept.lines.append(data)
        if at_once or time.monotonic() > kept.flushed + FLUSH:
            files.write(kept.path, b"".join(kept.lines))
            kept.flushed = time.monotonic()


@cache
def _object(folder: str) -> _Object:
    return _Object(files.join(folder, f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}.jsonl"))
