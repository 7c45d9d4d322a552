"""The shadow of a target, by the kind of place that its plan gave it. A vendor's module is imported only when it is asked for."""

from importlib import import_module
from typing import Any

from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.interface import Shadow

SHADOWS: dict[str, str] = {
    "create": "tasks.shadows.postgres.new_table:NewTable",
    "replace": "tasks.shadows.postgres.new_table:NewTable",
    "sync": "tasks.shadows.postgres.synced_table:SyncedTable",
    "column": "tasks.shadows.postgres.live_column:LiveColumn",
    "side_table": "tasks.shadows.postgres.live_column:LiveColumn",
}
"""Kind of place → where the class of its shadows is."""


def shadow_of(run: Run, target: Target[Any]) -> Shadow:
    """Opens it; nothing is asked of the database yet."""
    module, name = SHADOWS[target.place.kind].split(":")
    shadow: Shadow = getattr(import_module(module), name)(run, target)
    return shadow
