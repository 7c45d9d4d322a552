"""A run's model is the one that it was planned with: a branch of the hub moves, and other weights come to lie in a directory."""

from tasks.base.errors import UsageError
from tasks.embedders.interface import Embedder
from tasks.runs.plan import Plan


def refuse_another(plan: Plan, name: str, embedder: Embedder) -> None:
    """Raises UsageError where ``name``, a model of the plan, stands for another one by now. A provider's that is paid is known by its
    name alone, and its dimensions may be known only once it is asked."""
    if embedder.account:
        return
    own = {target.space for target in plan.targets if not target.carried} if name == plan.request.embedder else set()
    old = (
        {target.old_space for target in plan.targets if target.old_space}
        if name == plan.request.old_embedder
        else set()
    )
    planned = own or old
    if planned and embedder.space.fingerprint not in planned:
        raise UsageError(
            f"embedder {name!r} is not the model that run {plan.run_id} was planned with: its weights, or what its name stands for, have "
            "changed, and vectors of both cannot be compared. Put the earlier one back, or start a new run"
        )
