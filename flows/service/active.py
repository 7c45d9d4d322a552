"""The models that a database says are in use."""

from dataclasses import dataclass

from tasks.embedders.interface import Kind
from tasks.runs import ledger, models
from tasks.runs.database import Connection


@dataclass(frozen=True)
class Active:
    """A model that people search by."""

    name: str
    kind: Kind
    """What of the rows it is given."""


def active_models(connection: Connection) -> list[Active]:
    """Those that runs have switched to, the latest first, each once."""
    if not models.exists(connection):
        return []
    rows = connection.execute(
        "SELECT run_id, target FROM vecferry.model WHERE state = 'active' AND run_id IS NOT NULL "
        "ORDER BY switched_at DESC NULLS LAST, model DESC"
    ).fetchall()
    result: dict[Active, None] = {}
    for run_id, number in rows:
        plan = ledger.get(connection, run_id).plan
        target = next(target for target in plan.targets if target.number == number)
        if plan.request.embedder:
            result[Active(plan.request.embedder, target.content.gives)] = None
    return list(result)
