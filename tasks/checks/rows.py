"""What is checked of rows: that as many are there as at the source, that none is missing, extra or says something else, and
that no more were set aside than may be."""

from tasks.base.words import agreeing
from tasks.checks.gates import Gates
from tasks.checks.measures import Check
from tasks.shadows.difference import Difference, Named


def count_checks(difference: Difference, limit: int | None, moved: int) -> list[Check]:
    """The source's own count against the rows that were compared: a listing may be shorter than the store. Rows that
    were ``moved`` while they were compared, and those between the two counts, may be either way."""
    if difference.counted is None:
        return []
    quarantined = difference.quarantined.count
    fewest, most = sorted(min(limit or count, count) for count in difference.counted)
    accounted = difference.compared + quarantined
    shown = f"{accounted:,} compared" + (f", {quarantined:,} of them quarantined" if quarantined else "")
    passed = min(accounted, difference.listed) >= fewest - moved and (bool(limit) or accounted <= most + moved)
    return [
        Check("source count", passed, max(most, 1), shown, f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}")
    ]


def row_checks(difference: Difference, rows: int, moving: bool, gates: Gates) -> list[Check]:
    """``rows`` is how many the place holds; ``moving`` where others write to it meanwhile."""
    quarantined, missing, orphaned, stale = (
        difference.quarantined.count,
        difference.missing,
        difference.orphaned,
        difference.stale,
    )
    seen = difference.compared + quarantined
    expected = difference.compared - missing.count + orphaned.count + difference.added.count
    # While others write, rows counted now were compared a moment ago; the ids below say which differ.
    counts = [] if moving else [Check("rows", rows == expected, seen, f"{rows:,} stored", f"{expected:,}")]
    return [
        *counts,
        Check("missing", missing.count == 0, seen, _named(missing), "0"),
        Check("extra", orphaned.count == 0, seen + rows, _named(orphaned), "0"),
        Check("content", stale.count == 0, seen, f"{_named(stale)} {agreeing(stale.count, 'differ')}", "0"),
        Check(
            "quarantined",
            quarantined <= gates.max_quarantined,
            seen,
            _named(difference.quarantined),
            f"≤ {gates.max_quarantined:,}",
            gate="max_quarantined",
        ),
    ]


def queue_checks(stuck: Named | None, difference: Difference) -> list[Check]:
    """Rows that were noted as changed and that catching up does not bring in line: no other check looks at them. ``stuck`` is
    None where nobody notes what changes."""
    if stuck is None:
        return []
    seen = difference.compared + difference.quarantined.count + stuck.count
    return [
        Check("queue", stuck.count == 0, max(seen, 1), f"{_named(stuck)} {agreeing(stuck.count, 'stay')} in it", "0")
    ]


def _named(rows: Named) -> str:
    return f"{rows.count:,}{rows.first}"
