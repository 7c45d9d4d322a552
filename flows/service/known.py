"""The models that a database knows."""

from dataclasses import dataclass

from tasks.embedders.interface import Kind
from tasks.runs import ledger, models, registry
from tasks.runs.database import Connection


@dataclass(frozen=True)
class Known:
    """A model whose vectors some rows have."""

    name: str
    kind: Kind
    """What of the rows it is given."""
    active: bool
    """Whether people search by it."""


def known_models(connection: Connection) -> list[Known]:
    """Those of tables that serve several models, and those that runs have made and switched to; each once, the latest first."""
    if not models.exists(connection):
        return []
    # Through to_jsonb: a ledger of an earlier version is read as it is.
    rows = connection.execute(
        "SELECT to_jsonb(m) ->> 'name', state = 'active', run_id, target FROM vecferry.model m WHERE state IN ('built', 'active') "
        "AND to_jsonb(m) ->> 'ended_at' IS NULL ORDER BY switched_at DESC NULLS LAST, model DESC"
    ).fetchall()
    result: dict[Known, None] = {}
    for name, active, run_id, number in rows:
        if name is not None:
            result[Known(name, "text", active)] = None
        elif active and run_id is not None:
            plan = ledger.get(connection, run_id).plan
            target = next(target for target in plan.targets if target.number == number)
            if plan.request.embedder:
                result[Known(plan.request.embedder, target.content.gives, True)] = None
    return [model for model in result if not model.name.startswith(f"{registry.UNKNOWN}/")]
