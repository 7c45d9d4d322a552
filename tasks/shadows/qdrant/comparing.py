"""A collection of ours held against the old one: one comparison, for catching up and for verifying.

While nobody uses the new collection the old one is the truth. From the switch on the new one is: only what changed at the old
one since the run's last look is brought, and only onto points that say what the run wrote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
from tasks.shadows.qdrant.points import PAGE, Digest, alike, beside, contents, digests, lacking, point_ids
from tasks.shadows.qdrant.sifting import sift
from tasks.stores.qdrant import writing
from tasks.stores.qdrant.points import written
from tasks.stores.qdrant.records import QdrantRecords
from tasks.stores.records import with_hash

Kind = Literal["same", "refused", "missing", "stale", "edited"]


@dataclass(frozen=True)
class Comparison:
    """What is held against what, and whether the new collection is brought in line."""

    run: Run
    target: Target
    notes: Notes
    source: QdrantRecords
    there: QdrantRecords
    used: bool
    """Whether people use the new collection now."""
    used_before: bool
    """Whether they do, or did before a rollback."""
    conditional: bool
    """Whether a write to it can be bound to a condition."""
    apply: bool = False


def compare(comparison: Comparison, only: list[str] | None = None, tell: Tell = quiet) -> Difference:
    """One pass over the old collection, page by page. ``only`` restricts it to these ids."""
    source, total, ids = comparison.source, Difference(), pa.array(only or [], pa.string())
    if only is None:
        before = source.count()
        ids = parts.listed_ids(comparison.run, comparison.target) if comparison.target.limit else source.ids()
        total = Difference(listed=len(ids), counted=(before, source.count()))
    gone = list[str]()
    for at in range(0, len(ids), PAGE):
        difference, absent = _page(comparison, ids[at : at + PAGE].to_pylist())
        total += difference
        gone += absent
        tell(total.compared / max(1, len(ids)))
    if only is None:
        stay = ids.filter(pc.invert(pc.is_in(ids, pa.array(gone, pa.string())))) if gone else ids
        there = comparison.there.ids()
        gone = there.filter(pc.invert(pc.is_in(there, stay))).to_pylist()
    for at in range(0, len(gone), PAGE):
        total += _orphans(comparison, gone[at : at + PAGE], whole=only is None)
    return total


def _page(comparison: Comparison, ids: list[str]) -> tuple[Difference, list[str]]:
    """The page's difference, and which of its ids the old collection has no longer."""
    rows, there = contents(comparison.source, ids), comparison.there
    source, copies = digests(rows), contents(there, ids)
    present, known = digests(copies), comparison.notes.of(ids)
    without = lacking(there.qdrant, there.name, there.shape.name, list(present))
    theirs = dict(zip(copies["id"].to_pylist(), beside(copies), strict=True))
    carried = {
        name: name in theirs and alike(others, theirs[name])
        for name, others in zip(rows["id"].to_pylist(), beside(rows), strict=True)
    }
    kinds = {
        name: _kind(comparison, one, present.get(name), (name in without, carried[name]), known.get(name))
        for name, one in source.items()
    }
    chosen = {
        kind: [name for name in kinds if kinds[name] == kind] for kind in ("missing", "stale", "edited", "refused")
    }
    _keep(comparison, chosen["edited"], present, known)
    left, refused = list[str](), chosen["refused"]
    if comparison.apply and (chosen["missing"] or chosen["stale"]):
        with comparison.run.connection() as connection:
            checkpoints.check_stop(connection, comparison.run.run_id)
        some = rows.filter(pc.is_in(rows["id"], pa.array(chosen["missing"] + chosen["stale"], pa.string())))
        new, why = embedded(comparison.run, comparison.target, with_hash(some))
        kept, rejected = sift(comparison.run, new, why)
        if rejected:
            quarantine.keep_page(comparison.run, comparison.target.number, rejected)
            refused = refused + rejected["id"].to_pylist()
        left = _write(comparison, whole(kept, rejected), kinds, copies)
    aside = {*refused, *left}
    return Difference(
        compared=len(source) - len(refused),
        missing=named([name for name in chosen["missing"] if name not in aside]),
        stale=named([name for name in chosen["stale"] if name not in aside]),
        edited=named(chosen["edited"] + left),
        quarantined=named(refused),
    ), [name for name in ids if name not in source]


def _kind(
    comparison: Comparison, source: Digest, there: Digest | None, vectors: tuple[bool, bool], known: Known | None
) -> Kind:
    """How a point of the old collection stands to the new one's, which lacks the new vector or not, and has the others or not."""
    lacks, carried = vectors
    if there is None:  # what the application deleted from the new one stays deleted
        return "edited" if comparison.used and known and known.payload else "missing"
    unchanged = known is not None and Digest(known.document or b"?", known.payload or b"?", known.others) == source
    if known and unchanged and there.payload == source.payload and carried and lacks == known.refused:
        return "refused" if known.refused else "same"
    own = known is not None and known.wrote(there.payload)
    if comparison.used:  # what others gave it before the switch has been gone back from
        kept = known is not None and known.kept == there.payload
        return "stale" if (own or kept) and not unchanged else "edited"
    return "edited" if unchanged and not own and comparison.used_before else "stale"


def whole(kept: pa.Table, rejected: pa.Table | None) -> pa.Table:
    """Both, for a collection that keeps the payloads of all; those of the second have no vector."""
    if not rejected:
        return kept.append_column("refused", pa.array([False] * kept.num_rows, pa.bool_()))
    aside = rejected.drop_columns(["class", "message"]).append_column(
        "refused", pa.array([True] * rejected.num_rows, pa.bool_())
    )
    return pa.concat_tables([whole(kept, None), aside])


def write(comparison: Comparison, rows: pa.Table) -> dict[str, Known]:
    """Writes points whole, and returns what is then known of them."""
    told = digests(rows)
    for batch in rows.combine_chunks().to_batches():
        writing.upsert(comparison.there.qdrant, comparison.there.name, written(batch, comparison.there.shape.name))
    return {
        name: Known(told[name].document, told[name].payload, told[name].others, refused=aside)
        for name, aside in zip(rows["id"].to_pylist(), rows["refused"].to_pylist(), strict=True)
    }


def _write(comparison: Comparison, rows: pa.Table, kinds: dict[str, Kind], copies: pa.Table) -> list[str]:
    """The same for rows that are missing or stale; of a collection that people use only what they left alone. Returns what
    they did not."""
    if not rows.num_rows:
        return []
    told, there = digests(rows), comparison.there
    if comparison.used_before:  # else all that is there is the run's
        comparison.notes.intend({name: one.payload for name, one in told.items()})
    if not comparison.used:
        comparison.notes.note(write(comparison, rows))
        return []
    was = dict(zip(copies["id"].to_pylist(), copies["metadata"].to_pylist(), strict=True))
    for batch in rows.combine_chunks().to_batches():
        for name, point in zip(batch.column("id").to_pylist(), written(batch, there.shape.name), strict=True):
            _write_unless_theirs(comparison, name, point, was.get(name) if kinds[name] == "stale" else None)
    now = digests(contents(there, list(told)))
    done = [name for name in told if name in now and now[name].payload == told[name].payload]
    aside = dict(zip(rows["id"].to_pylist(), rows["refused"].to_pylist(), strict=True))
    comparison.notes.note(
        {name: Known(told[name].document, told[name].payload, told[name].others, refused=aside[name]) for name in done}
    )
    return [name for name in told if name not in done]


def _write_unless_theirs(comparison: Comparison, name: str, point: writing.Point, was: str | None) -> None:
    """Inserts a point that is not there, or replaces one whose payload ``was`` what the run wrote."""
    there = comparison.there
    if comparison.conditional and was is None:
        writing.upsert(there.qdrant, there.name, [point], mode="insert_only")
        return
    if comparison.conditional:
        unchanged = guards.unchanged(was)
        only = {"must": unchanged} if unchanged else None
        writing.upsert(there.qdrant, there.name, [point], mode="update_only", update_filter=only)
        return
    now = contents(there, [name])
    if now.num_rows == (was is not None) and (was is None or now["metadata"][0].as_py() == was):
        writing.upsert(there.qdrant, there.name, [point])


def _orphans(comparison: Comparison, ids: list[str], whole: bool) -> Difference:
    """Points whose id the old collection does not list."""
    total, back = Difference(), contents(comparison.source, ids)["id"].to_pylist()
    if back and whole:  # added after the listing, so that no page has compared them
        total += _page(comparison, back)[0]
    gone = [name for name in ids if name not in set(back)]
    rows, known = contents(comparison.there, gone), comparison.notes.of(gone)
    there = digests(rows)
    own = [name for name in there if _is_own(comparison, there[name], known.get(name))]
    if comparison.apply and own:
        _delete(comparison, own, rows)
    left = [name for name in there if name not in set(own)]
    _keep(comparison, left, there, known)
    edited = [name for name in left if name in known and known[name].is_the_runs]
    added = [name for name in left if name not in set(edited)]
    return total + Difference(orphaned=named(own), edited=named(edited), added=named(added))


def _is_own(comparison: Comparison, there: Digest, known: Known | None) -> bool:
    """Whether a point of the new collection is the run's: it says what that wrote, or has been gone back from, so that the old
    collection is the truth of every point that came from there."""
    if known is None or not known.is_the_runs:
        return not comparison.used_before
    return known.wrote(there.payload) or known.kept == there.payload or not comparison.used


def _keep(comparison: Comparison, ids: list[str], there: Mapping[str, Digest], known: Mapping[str, Known]) -> None:
    """Notes what others gave points that nobody uses just now: once people do, whatever else is there was written after the switch."""
    if not comparison.apply or comparison.used:
        return
    kept = {name: there[name].payload for name in ids if name not in known or known[name].kept != there[name].payload}
    if kept:
        comparison.notes.keep(kept)


def _delete(comparison: Comparison, ids: Sequence[str], rows: pa.Table) -> None:
    there, told = comparison.there, digests(rows)
    comparison.notes.leave({name: told[name].payload for name in ids})
    if comparison.used and comparison.conditional:
        chosen = set(ids)
        for name, payload in zip(rows["id"].to_pylist(), rows["metadata"].to_pylist(), strict=True):
            if name in chosen:
                conditions = [{"has_id": point_ids([name])}, *guards.unchanged(payload)]
                guards.delete_where(there.qdrant, there.name, {"must": conditions})
    else:
        writing.delete(there.qdrant, there.name, point_ids(ids))
    comparison.notes.forget(ids)
