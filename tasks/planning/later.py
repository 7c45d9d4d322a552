"""Planners of a store whose client is slow to import: their modules are imported when their flow is planned."""

from dataclasses import dataclass
from importlib import import_module

from tasks.planning.planned import Draft, Planned, Planner
from tasks.runs.database import Database
from tasks.runs.plan import Request


@dataclass(frozen=True)
class Later:
    """Satisfies Planner, as the module of that name does."""

    name: str

    def draft(self, database: Database, request: Request, run_id: str) -> Draft:
        return self._planner.draft(database, request, run_id)

    def examine(self, database: Database, draft: Draft) -> Draft:
        return self._planner.examine(database, draft)

    def estimate(self, database: Database, draft: Draft) -> Planned:
        return self._planner.estimate(database, draft)

    def prepare(self, database: Database) -> None:
        self._planner.prepare(database)

    @property
    def _planner(self) -> Planner:
        return import_module(self.name)
