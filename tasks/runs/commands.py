"""The commands that messages name. Each is whole, so that it can be typed as it stands."""

from tasks.base.settings import DEFAULT_DATABASE
from tasks.runs.plan import Plan


def command(verb: str, run_id: str, database: str) -> str:
    """``vecferry VERB RUN``, with the name of the run's database where that is not the default."""
    return f"vecferry {verb} {run_id}{_option(database)}"


def resumption(plan: Plan, verb: str = "run") -> str:
    """``vecferry run FLOW --run-id RUN``, or ``snapshot`` instead of ``run``: goes on with the run of this plan."""
    return f"vecferry {verb} {plan.request.flow} --run-id {plan.run_id}{_option(plan.request.database)}"


def overview(database: str) -> str:
    """``vecferry status``, which works also where nobody knows whether a run has begun."""
    return f"vecferry status{_option(database)}"


def _option(database: str) -> str:
    return "" if database == DEFAULT_DATABASE else f" -p database={database}"
