"""Rows that changed at the source while they were checked."""

from typing import Any

from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Difference
from tasks.shadows.registry import shadow_of


def moved(run: Run, target: Target[Any], ids: list[str], known: Difference) -> set[str]:
    """Those of ``ids`` that agreed when every row was compared, and have changed at the source since."""
    return set(shadow_of(run, target).compare(only=ids).ids) - set(known.ids) if ids else set()
