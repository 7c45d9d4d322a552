"""Rows that should have a vector and have none, counted where they lie and not by what the run has noted."""

from tasks.base.words import agreeing, counted
from tasks.checks.measures import Check
from tasks.shadows.difference import Coverage


def coverage_checks(coverage: Coverage | None) -> list[Check]:
    """Of rows without a vector only those pass that were set aside, which has a gate of its own, or that wait to be caught up."""
    if coverage is None:
        return []
    there, lost = coverage.rows - coverage.without, coverage.unexplained
    why = [f"{counted(coverage.refused, 'row', 'were')} set aside"] if coverage.refused else []
    why += [f"{counted(coverage.waiting, 'row', 'are')} in the queue"] if coverage.waiting else []
    why += [f"{counted(lost.count, 'row', 'have')} none, and nothing says why{lost.first}"] if lost.count else []
    result = "; ".join([f"{there:,} of {counted(coverage.rows, 'row')} {agreeing(there, 'have')} one", *why])
    wanted = f"{coverage.rows - coverage.refused - coverage.waiting:,}"
    return [Check("vectors", lost.count == 0, coverage.rows, result, wanted)]
