"""The switch of the targets that lie in one Qdrant: what aliases do in one atomic call, and the ledger's mark after it."""

import time
from dataclasses import dataclass

from tasks.base.errors import TransientError, VecferryError
from tasks.runs.checkpoints import Mark
from tasks.runs.commands import command
from tasks.runs.run import Run
from tasks.shadows.qdrant import aliases
from tasks.shadows.qdrant.shadow import QdrantShadow

TRIES, PAUSE = 5, 2.0
"""Of the last pass after the switch, which only errors that may pass are tried again for; seconds between two."""


@dataclass(frozen=True)
class QdrantUnit:
    """Satisfies Unit."""

    run: Run
    shadows: tuple[QdrantShadow, ...]

    def active(self) -> bool:
        return all(shadow.active() for shadow in self.shadows)

    def dependents(self) -> list[str]:
        """Nothing in Qdrant refers to a collection but its aliases, which the shadows look at."""
        return []

    def stuck(self) -> list[str]:
        return []

    def switch(self, mark: Mark) -> list[str]:
        waiting = [shadow for shadow in self.shadows if not shadow.active()]
        for shadow in waiting:
            shadow.ready_to_switch()
        aliases.change(self.shadows[0].qdrant, [one for shadow in waiting for one in shadow.switching()])
        for shadow in waiting:
            shadow.switch()
        lines = [line for shadow in self.shadows for line in (*self._settled(shadow), *shadow.advice())]
        mark.alone()
        return lines

    def replaced(self) -> list[str]:
        """Nothing of anybody's is ever overwritten, with force neither."""
        return []

    def take_back(self, switched: bool, mark: Mark, force: bool = False) -> list[str]:
        lines = [line for shadow in self.shadows for line in shadow.take_back(switched)]
        mark.alone()
        return lines

    def settle(self) -> None:
        """The mark is set after all else."""

    def contract(self, mark: Mark) -> list[str]:
        lines = [line for shadow in self.shadows for line in shadow.contract()]
        mark.alone()
        return lines

    def _settled(self, shadow: QdrantShadow) -> list[str]:
        """Brings what changed before the switch; what is to be said where that does not work. The switch is made, so nothing
        is raised for it."""
        for attempt in range(1, TRIES + 1):
            try:
                shadow.settle()
                return []
            except VecferryError as error:
                if isinstance(error, TransientError) and attempt < TRIES:
                    time.sleep(PAUSE)
                    continue
                catch_up = command("catch-up", self.run.run_id, self.run.plan.request.database)
                return [f"what changed just before the switch is not brought yet ({error}): {catch_up}"]
        raise AssertionError("unreachable")
