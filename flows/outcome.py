"""How a flow ends: what its run has come to, for Prefect, the terminal and the ledger."""

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

from prefect import State
from prefect.states import Completed

from tasks.base.errors import VecferryError
from tasks.runs import artifacts, status
from tasks.runs.outcome import Outcome
from tasks.runs.run import open_run

Result = dict[str, Any]
"""What a flow returns: the JSON of its run's outcome, and what it did."""


def outcome(run_id: str, database: str) -> Outcome:
    """What the run has come to, from the ledger."""
    with open_run(run_id, database).connection() as connection:
        return status.outcome(connection, run_id)


def ended(
    run_id: str, database: str, lines: Sequence[str] = (), notes: Sequence[str] = (), **more: Any
) -> State[Result]:
    """How a flow ends that did its work: in the state's message and an artifact, what it did (``lines``, or what the run has
    come to) and what is to be known of it (``notes``), and the run's outcome as its result."""
    result = outcome(run_id, database)
    told = list(lines) or [f"{result.state.replace('_', ' ')}: {target}" for target in result.targets]
    told += notes
    artifacts.result(run_id, told)
    return Completed(message="; ".join(told), data={**result.as_json(), "done": [*lines, *notes], **more})


def words_of(error: BaseException) -> str:
    """What is noted of an error: our own words, or the class and words of somebody else's."""
    if not isinstance(error, Exception) or isinstance(error, CancelledError):
        return "interrupted"
    return str(error) if isinstance(error, VecferryError) else f"{type(error).__name__}: {error}"
