"""Planners whose modules are imported when their flow is planned: nobody waits for those of other flows, and for the client of
a store that they plan for."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tasks.planning.planned import Draft, Planned, Planner
from tasks.runs.database import Database
from tasks.runs.plan import Request


@dataclass(frozen=True)
class Later:
    """Satisfies Planner, as what ``made_of`` makes of the module of that name does; the module itself where nothing is made of it."""

    name: str
    made_of: Callable[[Any], Planner] = lambda module: module

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
        return self.made_of(import_module(self.name))
