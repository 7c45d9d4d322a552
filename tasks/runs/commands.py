"""The commands that messages name. Each is whole, so that it can be typed as it stands: where there are two ledgers, it names
the one that is meant, since both may have a run of that name."""

from tasks.runs.database import is_meant
from tasks.runs.plan import Plan
from tasks.stores.postgres.named import LEDGERS


def command(verb: str, run_id: str, database: str) -> str:
    """``vecferry VERB RUN``, with the name of the run's database where that is not the only one that it would be looked for in."""
    return f"vecferry {verb} {run_id}{_option(database)}"


def resumption(plan: Plan, verb: str = "run") -> str:
    """``vecferry run FLOW --run-id RUN``, or ``snapshot`` instead of ``run``: goes on with the run of this plan."""
    return f"vecferry {verb} {plan.request.flow} --run-id {plan.run_id}{_option(plan.request.database)}"


def overview(database: str) -> str:
    """``vecferry status``, which works also where nobody knows whether a run has begun. It shows both ledgers."""
    return f"vecferry status{'' if database in LEDGERS else _option(database)}"


def _option(database: str) -> str:
    return "" if is_meant(database) else f" -p database={database}"
