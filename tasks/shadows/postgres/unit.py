"""The switch of the targets that lie in one PostgreSQL: all of them and the run's mark in one transaction, which never makes a
reader wait behind it for long."""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.base.words import counted
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run
from tasks.shadows.difference import Named
from tasks.shadows.postgres.shadow import PostgresShadow
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked


@dataclass(frozen=True)
class PostgresUnit:
    """Satisfies Unit."""

    run: Run
    shadows: tuple[PostgresShadow, ...]

    def active(self) -> None:
        """The switch and its mark are one transaction."""

    def dependents(self) -> list[str]:
        with self.run.connection() as connection:
            return [line for shadow in self.shadows for line in shadow.dependents(connection)]

    def stuck(self) -> list[str]:
        left = [(shadow.target.name, shadow.stuck() or Named()) for shadow in self.shadows]
        return [f"{counted(rows.count, 'row')}{rows.first} of {name}" for name, rows in left if rows.count]

    def switch(self, mark: Mark) -> None:
        def switched(shadow: PostgresShadow, connection: Connection) -> list[str]:
            shadow.switch(connection)
            return []

        self._change(switched, mark)

    def take_back(self, switched: bool, mark: Mark) -> list[str]:
        for shadow in self.shadows if not switched else ():
            shadow.clear()
        return self._change(lambda shadow, connection: [shadow.take_back(connection, switched)], mark)

    def contract(self, mark: Mark) -> list[str]:
        return self._change(lambda shadow, connection: shadow.contract(connection), mark)

    def _change(self, change: Callable[[PostgresShadow, Connection], list[str]], mark: Mark) -> list[str]:
        with self.run.connection() as connection:

            def whole() -> list[str]:
                lines = [line for shadow in self.shadows for line in change(shadow, connection)]
                mark.write(connection)
                return lines

            return locked(connection, whole)
