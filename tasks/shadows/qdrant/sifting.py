"""Points that get no new vector: those that say nothing the model could be given, and those that it refuses."""

from collections.abc import Mapping

import pyarrow as pa

from tasks.embedders.interface import RowError
from tasks.runs.run import Run


def sift(run: Run, page: pa.Table, refused: Mapping[int, RowError]) -> tuple[pa.Table, pa.Table | None]:
    """As Shadow.sift."""
    errors = dict(refused)
    for row, document in enumerate(page["document"].to_pylist()):
        if document is None:
            errors.setdefault(row, RowError("absent", _absent(run)))
    if not errors:
        return page, None
    bad, kept = sorted(errors), [row for row in range(page.num_rows) if row not in errors]
    rejected = page.take(bad).append_column("class", pa.array([errors[row].kind for row in bad]))
    rejected = rejected.append_column("message", pa.array([errors[row].message for row in bad]))
    return page.take(pa.array(kept, pa.int64())), rejected


def document_key(run: Run) -> str:
    """The key of the payload that tells what the model is given."""
    source = run.plan.request.source
    key: str = (source.get("lookup") or {}).get("key") or source["document"]
    return key


def _absent(run: Run) -> str:
    key = document_key(run)
    if run.plan.request.source.get("lookup"):
        return f"no row of the lookup has the {key} of its payload"
    return f"its payload has no text under {key!r}"
