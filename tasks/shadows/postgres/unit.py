"""The switch of the targets that lie in one PostgreSQL: all of them and the run's mark in one transaction, which never makes a
reader wait behind it for long."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tasks.base.words import counted
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run
from tasks.shadows.difference import Named
from tasks.shadows.postgres.probe import Clock, Different, TooSlow
from tasks.shadows.postgres.proof import SHARE, Change, Proof, allot
from tasks.shadows.postgres.shadow import PostgresShadow
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.transactions import wait_for_transactions

NAMES: dict[Change, str] = {"switch": "switch", "take_back": "rollback", "contract": "contract"}
TRIES = 6
"""How often a change is tried whose proof takes too long, or shows a difference: what others write may cause one."""
WAIT = 5.0
"""Seconds until calls that are under way have ended; nobody waits for the change meanwhile. It is made then all the same."""
PAUSE = 0.2
"""Seconds until a change is tried again whose proof took too long; then twice as many: others who are at work come to an end."""


@dataclass(frozen=True)
class PostgresUnit:
    """Satisfies Unit."""

    run: Run
    shadows: tuple[PostgresShadow, ...]

    def active(self) -> bool | None:
        """The switch and its mark are one transaction; but people may choose by hand what they use."""
        with self.run.connection() as connection:
            return False if any(shadow.passed_over(connection) for shadow in self.shadows) else None

    def dependents(self) -> list[str]:
        with self.run.connection() as connection:
            return [line for shadow in self.shadows for line in shadow.dependents(connection)]

    def stuck(self) -> list[str]:
        left = [(shadow.target.name, shadow.stuck() or Named()) for shadow in self.shadows]
        return [f"{counted(rows.count, 'row')}{rows.first} of {name}" for name, rows in left if rows.count]

    def replaced(self) -> list[str]:
        with self.run.connection() as connection:
            return [line for shadow in self.shadows for line in shadow.replaced(connection)]

    def switch(self, mark: Mark) -> list[str]:
        def switched(shadow: PostgresShadow, connection: Connection) -> list[str]:
            shadow.switch(connection)
            return []

        self._each(lambda shadow, connection: shadow.stand_in(connection))
        try:
            self._wait_for_calls()
            lines = self._change(switched, mark, "switch")
        except BaseException:
            self._stand_back()
            raise
        return [*lines, *(note for shadow in self.shadows for note in shadow.notes())]

    def take_back(self, switched: bool, mark: Mark, force: bool = False) -> list[str]:
        for shadow in self.shadows if not switched else ():
            shadow.clear()

        def taken_back(shadow: PostgresShadow, connection: Connection) -> list[str]:
            return [shadow.take_back(connection, switched)]

        try:
            lines = self._change(taken_back, mark, "take_back" if switched else None)
        except (TooSlow, Different) as refused:
            if not force:
                raise
            lines = [*self._change(taken_back, mark, None), f"not proven: {refused}"]
        if switched:
            self.settle()
        else:
            self._drop_superseded()
        return lines

    def settle(self) -> None:
        self._stand_back()
        for shadow in self.shadows:
            shadow.gone_back()

    def _stand_back(self) -> None:
        self._each(lambda shadow, connection: shadow.stand_back(connection))
        self._drop_superseded()

    def contract(self, mark: Mark) -> list[str]:
        lines = self._change(lambda shadow, connection: shadow.contract(connection), mark, "contract")
        self._drop_superseded()
        return lines

    def _wait_for_calls(self) -> None:
        """For those that began before others stood in for what they call."""
        if any(shadow.stands_in for shadow in self.shadows):
            with self.run.connection() as connection:
                wait_for_transactions(connection, WAIT)

    def _drop_superseded(self) -> None:
        with self.run.connection() as connection:
            for shadow in self.shadows:
                shadow.drop_superseded(connection)

    def _each(self, do: Callable[[PostgresShadow, Connection], None]) -> None:
        with self.run.connection() as connection:
            for shadow in self.shadows:
                locked(connection, partial(do, shadow, connection))

    def _change(
        self, change: Callable[[PostgresShadow, Connection], list[str]], mark: Mark, proving: Change | None
    ) -> list[str]:
        with self.run.connection() as connection:
            proofs: list[Proof] | None = None
            for attempt in range(TRIES):
                try:
                    proofs = self._proofs(connection, proving) if proofs is None else proofs
                    allot(proofs, SHARE / 2**attempt)  # fewer are tried in the change each time
                    return self._proven(connection, change, mark, proving, proofs)
                except TooSlow:
                    if attempt == TRIES - 1:
                        raise
                    time.sleep(PAUSE * 2**attempt)
                except Different:
                    if attempt == TRIES - 1:
                        raise
                    proofs = None
        raise AssertionError("unreachable")

    def _proofs(self, connection: Connection, proving: Change | None) -> list[Proof]:
        return [p for shadow in self.shadows if proving for p in shadow.proofs(connection, proving)]

    def _proven(
        self,
        connection: Connection,
        change: Callable[[PostgresShadow, Connection], list[str]],
        mark: Mark,
        proving: Change | None,
        proofs: Sequence[Proof],
    ) -> list[str]:
        def whole() -> list[str]:
            if proofs:  # of one moment: what others write meanwhile would be a difference
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            before, clock = (Clock(NAMES[proving] if proving else "") for _ in range(2))
            for proof in proofs:  # nobody waits for these: nothing is locked yet
                proof.before(connection, before)
            lines = [line for shadow in self.shadows for line in change(shadow, connection)]
            for proof in proofs:
                lines += proof.after(connection, clock)
            mark.write(connection)
            return lines

        return locked(connection, whole)
