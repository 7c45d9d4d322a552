"""The shadow of a target, by the mode that its plan gave it."""

from tasks.runs.plan import ColumnTarget, Target
from tasks.runs.run import Run
from tasks.shadows.interface import Shadow


def shadow_of(run: Run, target: Target) -> Shadow:
    """Opens it; nothing is asked of the database yet."""
    if isinstance(target, ColumnTarget):
        from tasks.shadows.postgres.live_column import LiveColumn

        return LiveColumn(run, target)
    if target.mode == "sync":
        from tasks.shadows.postgres.synced_table import SyncedTable

        return SyncedTable(run, target)
    from tasks.shadows.postgres.new_table import NewTable

    return NewTable(run, target)
