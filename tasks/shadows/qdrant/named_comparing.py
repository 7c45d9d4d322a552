"""A named vector held against the documents of the same points.

A vector is right that is of the document as it is now: as the run has noted it, or, where others wrote one of them, by what the
model makes of it. Points without one are what was added since, and what was upserted whole, which drops it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.base.progress import Tell, quiet
from tasks.runs import checkpoints, parts, quarantine
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.runs.vectors import embedded
from tasks.shadows.difference import Difference, named
from tasks.shadows.qdrant import guards
from tasks.shadows.qdrant.known import Known, Notes
from tasks.shadows.qdrant.points import NO_DOCUMENT, PAGE, Digest, contents, digests, lacking, point_ids
from tasks.shadows.qdrant.sifting import document_key, sift
from tasks.stores import canonical
from tasks.stores.interface import vectors
from tasks.stores.qdrant import writing
from tasks.stores.qdrant.points import point_id
from tasks.stores.qdrant.records import QdrantRecords
from tasks.stores.records import with_hash

Kind = Literal["same", "refused", "missing", "unsure", "orphaned"]
ALIKE = 0.999
"""The cosine from which on a vector is the model's of that document, whoever wrote it."""


@dataclass(frozen=True)
class Old:
    """The vectors that are gone back to by a rollback."""

    there: QdrantRecords
    model: str


@dataclass(frozen=True)
class Comparison:
    """What is compared, and whether it is brought in line."""

    run: Run
    target: Target
    notes: Notes
    there: QdrantRecords
    """The points with their new vectors, and without others."""
    active: bool
    """Whether the application uses the vector, and may write it."""
    conditional: bool
    """Whether a write can be bound to a condition."""
    apply: bool = False
    old: Old | None = None
    """What is kept current too; None where nothing is."""


def compare(comparison: Comparison, only: list[str] | None = None, tell: Tell = quiet) -> Difference:
    """One pass over the points, page by page. ``only`` restricts it to these ids."""
    there, total, ids = comparison.there, Difference(), pa.array(only or [], pa.string())
    if only is None:
        before = QdrantRecords.count(there)
        ids = parts.listed_ids(comparison.run, comparison.target) if comparison.target.limit else there.ids()
        total = Difference(listed=len(ids), counted=(before, QdrantRecords.count(there)))
    for at in range(0, len(ids), PAGE):
        total += _page(comparison, ids[at : at + PAGE].to_pylist())
        tell(total.compared / max(1, len(ids)))
    return total


def put(comparison: Comparison, rows: pa.Table, only: Mapping[str, Any] | None) -> None:
    """Writes the vectors of rows that have one to points that are still there: those that ``only``, a filter (Qdrant's JSON), is
    true of, None: all."""
    there, vector = comparison.there, comparison.there.shape.name
    names, matrix = rows["id"].to_pylist(), vectors(rows)
    if only and not comparison.conditional:
        without = lacking(there.qdrant, there.name, vector, names)
        keep = [at for at, name in enumerate(names) if name in without]
        names, matrix, only = [names[at] for at in keep], matrix[keep], None
    points = [{"id": point_id(name), "vector": {vector: one}} for name, one in zip(names, matrix, strict=True)]
    if points:
        writing.update_vectors(there.qdrant, there.name, points, update_filter=only)


def _page(comparison: Comparison, ids: list[str]) -> Difference:
    rows, there = contents(comparison.there, ids), comparison.there
    told, known = digests(rows), comparison.notes.of(ids)
    without = lacking(there.qdrant, there.name, there.shape.name, list(told))
    kinds = {name: _kind(one, name in without, known.get(name), comparison.active) for name, one in told.items()}
    chosen = {
        kind: [name for name in kinds if kinds[name] == kind] for kind in ("missing", "unsure", "orphaned", "refused")
    }
    if (
        comparison.apply and comparison.old
    ):  # before the new ones are noted: a start that is killed in between does it again
        _keep_old(comparison, comparison.old, rows, known)
    wanted = chosen["unsure"] + (chosen["missing"] if comparison.apply else [])
    stale, edited, refused = list[str](), list[str](), chosen["refused"] + chosen["orphaned"]
    if wanted:
        with comparison.run.connection() as connection:
            checkpoints.check_stop(connection, comparison.run.run_id)
        some = rows.filter(pc.is_in(rows["id"], pa.array(wanted, pa.string())))
        new, why = embedded(comparison.run, comparison.target, with_hash(some))
        kept, rejected = sift(comparison.run, new, why)
        alike = _alike(comparison, _of(kept, chosen["unsure"]))
        differing = [name for name in kept["id"].to_pylist() if name in set(chosen["unsure"]) - alike]
        edited = [name for name in differing if comparison.active and name not in known]
        stale = [name for name in differing if name not in set(edited)]
        aside = rejected["id"].to_pylist() if rejected else []
        if comparison.apply:
            _write(comparison, kept, told, {"missing": chosen["missing"], "stale": stale, "alike": list(alike)})
            _set_aside(comparison, rejected, told)
            refused = refused + aside
        else:
            stale += [name for name in aside if name in set(chosen["unsure"])]
    if comparison.apply and chosen["orphaned"]:
        _remove(comparison, chosen["orphaned"], told)
    missing = [name for name in chosen["missing"] if name not in set(refused)]
    return Difference(
        compared=len(told) - len(refused),
        missing=named(missing),
        stale=named([name for name in stale if name not in set(refused)]),
        orphaned=named(chosen["orphaned"]),
        edited=named(edited),
        quarantined=named(refused),
    )


def _kind(told: Digest, lacks: bool, known: Known | None, active: bool) -> Kind:
    """How a point stands to its vector. Of what it says no more there is none: one that the application has made is its own
    business while it uses them."""
    if told.document == NO_DOCUMENT:
        own = not active or (known is not None and not known.refused)
        return "orphaned" if not lacks and own else "refused"
    if known and known.document == told.document and known.refused == lacks:
        return "refused" if lacks else "same"
    return "missing" if lacks else "unsure"


def _alike(comparison: Comparison, rows: pa.Table) -> set[str]:
    """Those of the rows whose points have the vector that the model makes of their document."""
    if not rows.num_rows:
        return set()
    names = rows["id"].to_pylist()
    made = dict(zip(names, vectors(rows), strict=True))
    there = comparison.there.fetch(names, content=False)
    pairs = zip(there["id"].to_pylist(), there["embedding"].is_valid().to_pylist(), vectors(there), strict=True)
    return {name for name, present, vector in pairs if present and _cosine(vector, made[name]) >= ALIKE}


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def _write(comparison: Comparison, kept: pa.Table, told: Mapping[str, Digest], kinds: Mapping[str, list[str]]) -> None:
    """Writes what is missing, which is noted before: a vector of what a point said then is known to be one. What is stale is noted
    after."""
    vector = comparison.there.shape.name
    if missing := set(kinds["missing"]):
        rows = _of(kept, missing)
        comparison.notes.note(_known(rows["id"].to_pylist(), told))
        put(comparison, rows, {"must_not": [{"has_vector": vector}]})
    if stale := set(kinds["stale"]):
        rows = _of(kept, stale)
        for at in range(rows.num_rows):
            _replace(comparison, rows.slice(at, 1))
        comparison.notes.note(_known(rows["id"].to_pylist(), told))
    comparison.notes.note(_known(kinds["alike"], told))


def _keep_old(comparison: Comparison, old: Old, rows: pa.Table, known: Mapping[str, Known]) -> None:
    """Gives points the old model's vectors that a whole upsert dropped, and those whose document changed the ones of what they say
    now."""
    told, kept = digests(rows), replace(comparison, there=old.there)
    without = lacking(old.there.qdrant, old.there.name, old.there.shape.name, list(told))
    changed = {name for name in set(told) - without if name in known and known[name].document != told[name].document}
    if wanted := [name for name in without | changed if told[name].document != NO_DOCUMENT]:
        made = embedded(comparison.run, comparison.target, with_hash(_of(rows, wanted)), model=old.model)[0]
        made = made.filter(pc.is_valid(made["embedding"]))
        put(kept, _of(made, without), {"must_not": [{"has_vector": old.there.shape.name}]})
        some = _of(made, changed)
        for at in range(some.num_rows):
            _replace(kept, some.slice(at, 1))


def _replace(comparison: Comparison, row: pa.Table) -> None:
    """Writes one vector while the point still says what it is of."""
    key = document_key(comparison.run)
    value: Any = (canonical.loads(row["metadata"][0].as_py()) or {}).get(key)
    if comparison.conditional and guards.is_plain(key, value):
        return put(comparison, row, {"must": [guards.equal(key, value)]})
    names = row["id"].to_pylist()
    now = digests(contents(comparison.there, names))
    if now == digests(row):
        put(comparison, row, None)
    return None


def _set_aside(comparison: Comparison, rejected: pa.Table | None, told: Mapping[str, Digest]) -> None:
    if rejected:
        quarantine.keep_page(comparison.run, comparison.target.number, rejected)
        _remove(comparison, rejected["id"].to_pylist(), told)


def _remove(comparison: Comparison, ids: list[str], told: Mapping[str, Digest]) -> None:
    """Takes the vectors from points that are to have none, and notes that."""
    there = comparison.there
    writing.delete_vectors(there.qdrant, there.name, [there.shape.name], point_ids(ids))
    comparison.notes.note({name: Known(told[name].document, refused=True) for name in ids})


def _known(ids: Iterable[str], told: Mapping[str, Digest]) -> dict[str, Known]:
    return {name: Known(told[name].document) for name in ids}


def _of(rows: pa.Table, names: Iterable[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows["id"], pa.array(list(names), pa.string())))
