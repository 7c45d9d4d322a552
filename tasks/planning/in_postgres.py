"""Planners whose targets lie in the database of the ledger: they are lent a connection to it."""

from dataclasses import dataclass
from typing import Protocol

from tasks.planning.planned import Draft, Planned
from tasks.runs.database import Connection, Database
from tasks.runs.plan import Request
from tasks.shadows.postgres import extension


class Module(Protocol):
    """The functions of such a planner, as those of Planner but for the connection."""

    def draft(self, connection: Connection, request: Request, run_id: str) -> Draft: ...
    def examine(self, connection: Connection, draft: Draft) -> Draft: ...
    def estimate(self, connection: Connection, draft: Draft) -> Planned: ...


@dataclass(frozen=True)
class InPostgres:
    """Satisfies Planner."""

    module: Module

    def draft(self, database: Database, request: Request, run_id: str) -> Draft:
        with database.connection() as connection:
            return self.module.draft(connection, request, run_id)

    def examine(self, database: Database, draft: Draft) -> Draft:
        with database.connection() as connection:
            return self.module.examine(connection, draft)

    def estimate(self, database: Database, draft: Draft) -> Planned:
        with database.connection() as connection:
            return self.module.estimate(connection, draft)

    def prepare(self, database: Database) -> None:
        with database.connection() as connection:
            extension.prepare(connection)
