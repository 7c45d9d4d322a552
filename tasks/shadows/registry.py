"""The shadow of a target, by the kind of place that its plan gave it. A vendor's module is imported only when it is asked for."""

from importlib import import_module
from typing import Any

from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.interface import Refill, Shadow, Unit

SHADOWS: dict[str, str] = {
    "create": "tasks.shadows.postgres.new_table:NewTable",
    "replace": "tasks.shadows.postgres.new_table:NewTable",
    "sync": "tasks.shadows.postgres.synced_table:SyncedTable",
    "column": "tasks.shadows.postgres.live.column:LiveColumn",
    "renamed_column": "tasks.shadows.postgres.live.column:LiveColumn",
    "side_table": "tasks.shadows.postgres.live.column:LiveColumn",
    "model_column": "tasks.shadows.postgres.models.column:ModelColumnShadow",
    "named_vector": "tasks.shadows.qdrant.named_vector:NamedVectorShadow",
    "new_collection": "tasks.shadows.qdrant.new_collection:NewCollectionShadow",
    "replaced_collection": "tasks.shadows.qdrant.replaced_collection:ReplacedCollectionShadow",
}
"""Kind of place → where the class of its shadows is."""


def shadow_of(run: Run, target: Target[Any]) -> Shadow:
    """Opens it; nothing is asked of the database yet."""
    shadow: Shadow = _named(SHADOWS[target.place.kind])(run, target)
    return shadow


UNITS: dict[str, str] = {
    "postgres": "tasks.shadows.postgres.unit:PostgresUnit",
    "qdrant": "tasks.shadows.qdrant.unit:QdrantUnit",
}
"""Store of a place → where the class of its units is."""


def units_of(run: Run) -> list[Unit]:
    """The shadows of a run, those of one store together, in the order of the targets."""
    stores: dict[str, list[Shadow]] = {}
    for target in run.plan.targets:
        stores.setdefault(target.place.store, []).append(shadow_of(run, target))
    return [_named(UNITS[store])(run, tuple(shadows)) for store, shadows in stores.items()]


REFILLS: dict[str, str] = {"live_tables": "tasks.shadows.postgres.restored_column:RestoredColumn"}
"""Store of a source that a snapshot can be written back into, beside what is there → the class that does it."""


def takes_back(run: Run) -> bool:
    """Whether a snapshot of the run's source can be written back into the source."""
    return run.plan.request.source["store"] in REFILLS


def refill_of(run: Run, target: Target[Any], into: str, dimensions: int) -> Refill:
    """What writes the target's old vectors of so many dimensions back ``into`` a place beside them."""
    refill: Refill = _named(REFILLS[run.plan.request.source["store"]])(run, target, into, dimensions)
    return refill


def _named(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)
