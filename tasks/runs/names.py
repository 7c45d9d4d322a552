"""The names that runs go by, and those of the tables, keys and indexes that they make."""

import hashlib
import re
from datetime import datetime

from tasks.base.errors import UsageError

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


def check_run_id(run_id: str) -> str:
    """``run_id`` itself. Raises UsageError when it cannot name a directory and a connection."""
    if not RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run_id {run_id!r} must be up to 48 letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    return run_id


def generated_run_id(flow: str, at: datetime, tail: str) -> str:
    """A name that a person recognises, that sorts by time, and that ``check_run_id`` takes: FLOW-DATE-TIME-TAIL, where the
    tail has eight characters."""
    return f"{flow[:23].rstrip('-')}-{at:%Y%m%d-%H%M%S}-{tail}"


def table_name(collection: str) -> str:
    """The default table name of a collection: lower case, everything but letters and digits an underscore."""
    name = re.sub(r"[^a-z0-9]+", "_", collection.lower()).strip("_") or "collection"
    return f"c_{name}" if name[0].isdigit() else name


def shadow_name(run_id: str, schema: str, table: str) -> str:
    """A name that is this run's alone and fits into PostgreSQL's 63 bytes."""
    return f"{short(table, 40)}__{suffix(run_id, f'{schema}.{table}')}"


def suffix(run_id: str, table: str) -> str:
    """Eight hex digits that tell this run's tables, keys and indexes from those of any other."""
    return hashlib.sha256(f"{run_id}\0{table}".encode()).hexdigest()[:8]


def short(name: str, limit: int) -> str:
    """``name`` cut to ``limit`` bytes, between characters."""
    return name.encode()[:limit].decode(errors="ignore")


def index_names(run_id: str, table: str, target: str) -> dict[str, str]:
    """Names of a table's key and indexes; they carry the suffix of the run and its target because tables change schemas
    with them."""
    stem, end = short(table, 40), suffix(run_id, target)
    return {kind: f"{stem}_{word}_{end}" for kind, word in (("key", "pkey"), ("hnsw", "hnsw"), ("gin", "metadata"))}
