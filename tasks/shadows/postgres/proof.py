"""What a change of the functions that people call has to prove, before it is kept: a switch, its rollback, a contract. Everybody
who searches gets what he got before, and of new vectors what exact search gives; who was refused is refused.

A switch is made once before and taken back, for what takes long: exact search, all roles, whether the index is used. In the
change itself are searches by index only, each in a savepoint that is rolled back.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Literal

from tasks.base.words import some
from tasks.runs import models, search_bodies
from tasks.runs.models import Model
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.postgres import answers, generated, probe
from tasks.shadows.postgres.answers import Answers
from tasks.shadows.postgres.asking import Asking, asked
from tasks.shadows.postgres.called import look_up
from tasks.shadows.postgres.probe import Clock, Different, Probe
from tasks.shadows.postgres.rehearsal import looked_for, rehearsed
from tasks.stores.postgres.catalogue import executors, find, is_generated
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.places import LivePlace

Change = Literal["switch", "take_back", "contract"]
WHOLE = 0.8
"""The same where one role is tried of each function; above it old answers are compared in the rehearsal only."""
SHARE = 0.5
"""Of the time that calls may take in a change, what those may take that were measured before it."""


@dataclass
class Proof:
    """That one function answers as before, and by new vectors as exact search does. ``before`` and ``after`` are called in the
    transaction of the change."""

    probe: Probe
    kept: tuple[int, ...]
    """Dimensions of queries that are answered as before, to the letter."""
    made: tuple[int, ...] = ()
    """Those that are answered by new vectors."""
    roles: tuple[str, ...] = ()
    """Those who are tried in the change."""
    now: Answers = field(default_factory=dict)
    """What everybody is answered before the change."""
    order: tuple[str, ...] = ()
    """Those who can be tried, those first who say most."""
    seconds: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """How long each call takes, by role and dimensions of the query."""
    rehearsed: bool = False
    """Whether the change was made before, and taken back."""
    unlooked: list[str] = field(default_factory=list)
    """Roles whose rows could not be looked for by the old function."""
    _before: Answers = field(default_factory=dict)
    _executors: frozenset[str] = frozenset()

    def spends(self, roles: tuple[str, ...] = ()) -> float:
        """How many seconds of calls the change has for these roles, or for those who are tried in it."""
        return sum(self.seconds[call] for call in product(roles or self.roles, (*self.kept, *self.made)))

    def before(self, connection: Connection, clock: Clock) -> None:
        with clock.running(self.probe.function.name):
            self._executors = executors(connection, self.probe.function)
        self._before = self._ask(connection, self.kept, clock)

    def after(self, connection: Connection, clock: Clock) -> list[str]:
        """What is to be told of it. Raises VerificationRefused for any difference, which rolls the change back."""
        tried, name = self.probe, self.probe.function.name
        asked = self._ask(connection, (*self.kept, *self.made), clock)
        with clock.running(name):
            lines = [
                *self._opened(connection),
                *answers.differences(name, *map(tried.compared, (self._before, asked))),
                *answers.deviations(name, *map(tried.compared, (tried.exact, asked))),
            ]
        probe.refuse(lines)
        rest = [role for role in self.probe.taken if role not in self.roles]
        untried = "tried only in the rehearsal" if self.rehearsed else "not tried, for want of time,"
        return [
            *self.probe.notes,
            *(
                f"{name} returns a different {u} on each call, which was not compared"
                for u in sorted(self.probe.unsteady)
            ),
            *answers.failures(name, self.now),
            *(
                [f"{name} does not return the key, so whose rows it shows was not checked for {some(self.unlooked)}"]
                if self.unlooked
                else []
            ),
            *answers.unseen(name, {**self.now, **tried.exact, **asked}),
            *([f"{name} was {untried} as {some(rest)}"] if rest else []),
        ]

    def _ask(self, connection: Connection, dimensions: tuple[int, ...], clock: Clock) -> Answers:
        asked: Answers = {}
        for role in self.roles:
            for size in dimensions:
                with clock.running(self.probe.function.name):
                    asked[role, size] = self.probe.ask(connection, role, size, clock.end)
        return asked

    def _opened(self, connection: Connection) -> Iterator[str]:
        """Who may execute by now what was not for them to execute, and who no longer may."""
        schema, name = self.probe.function.schema, self.probe.function.name
        bodies = [s.body for s in search_bodies.of_function(connection, schema, name)]
        for called in dict.fromkeys([name, generated.second_name(name), *bodies]):
            function = find(connection, schema, called, switched=True)
            if function is None or (called != name and not function.made):
                continue
            allowed = executors(connection, function)
            for role in sorted(allowed - self._executors):
                yield f"{role} may execute {called}, and could not execute {name} before"
            for role in sorted(self._executors - allowed) if called == name else []:
                yield f"{role} may not execute {name} any longer"


def proofs(
    connection: Connection,
    run: Run,
    target: Target[LivePlace],
    change: Change,
    rehearsal: Callable[[], object],
) -> Iterator[Proof]:
    """What is to be proven of a change that ``rehearsal`` makes; it is taken back here. Raises VerificationRefused where that
    shows a difference."""
    settings: Mapping[str, str] = run.plan.request.own.get("probe_settings", {})
    model = models.of_run(connection, run.run_id, target.number)
    chain = models.ways_back(connection, target.place.schema, target.place.table)
    gone = _gone(connection, change, model)
    for name in dict.fromkeys([*generated.called(connection, target), *target.place.functions]):
        called = look_up(connection, target, name)
        if (function := called.function) is None:
            continue
        known, query = {s.model.model for s in called.known}, called.query
        served = {m.dimensions or 0: m for m in reversed(chain) if m.model in known}
        new = {model.dimensions or 0: model} if model and change == "switch" else {}
        dropped = gone.column_name if gone and change == "contract" else None
        roles = probe.roles(connection, function)
        taken = [role.name for role in roles if role.taken]
        asking = Asking(target.place.live, function, query, served, served | new, taken, settings, dropped)
        chosen = locked(connection, partial(asked, connection, asking), keep=False)
        if chosen is None:
            continue
        sizes = {size for _, size in chosen.calls}
        kept = {size for size, m in served.items() if gone is None or m.model != gone.model}
        if change == "take_back" and (query is None or not is_generated(function)):
            kept = set()  # one name for whatever is active, or what somebody has put in its place
        if change == "switch":
            kept = kept - new.keys() if query is not None else set()
        tried = Probe(function, chosen.calls, roles, settings, chosen.others)
        proof = Proof(tried, tuple(sorted(kept & sizes)), tuple(sorted(new.keys() & sizes)))
        now = [size for size in served if size in sizes] if change == "switch" else list(proof.kept)
        _ask_twice(connection, proof, now)
        if name != target.place.write_function:  # which may well take none of what it is called with
            _refuse_unproven(name, proof.now)
        if change == "switch":
            shown = rehearsed(connection, target, tried, now, proof.kept, proof.made, rehearsal)
            proof.probe, proof.seconds = shown.probe, {**proof.seconds, **shown.seconds}
            if name == target.place.write_function:  # which finds nothing
                proof.probe = replace(proof.probe, exact={})
            else:
                proof.unlooked = looked_for(connection, asking, chosen, shown.given)
            proof.rehearsed = True
        yield proof


def _refuse_unproven(name: str, now: Answers) -> None:
    if now and all(answer.refused for answer in now.values()):
        failing = "; ".join(answers.failures(name, now))
        raise Different(f"{failing}. So nothing about it can be proven: set what it reads with `probe_settings`")


def _gone(connection: Connection, change: Change, model: Model | None) -> Model | None:
    """The model that is no longer searched after the change."""
    if model is None or change == "switch":
        return None
    return models.predecessor(connection, model) if change == "contract" else model


def _ask_twice(connection: Connection, proof: Proof, now: Sequence[int]) -> None:
    """Notes in the proof what everybody is answered by vectors of ``now``, which columns are others each time, how long each call
    takes, and in which order roles are tried: those first who find rows, and last those who are refused."""
    tried = proof.probe

    def asked() -> tuple[Answers, Answers, dict[tuple[str, int], float]]:
        first, second, seconds = Answers(), Answers(), dict[tuple[str, int], float]()
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for key in product(tried.taken, now):
            started = time.perf_counter()
            first[key] = tried.ask(connection, *key)
            seconds[key] = time.perf_counter() - started
            second[key] = tried.ask(connection, *key)
        return first, second, seconds

    proof.now, second, proof.seconds = locked(connection, asked, keep=False)  # what writes waits for no row for long
    proof.probe = replace(tried, unsteady=answers.unsteady(proof.now, second))
    proof.order = tuple(sorted(tried.taken, key=lambda role: _shows_little(proof.now, role)))


def _shows_little(given: Answers, role: str) -> int:
    of_role = [answer for (who, _), answer in given.items() if who == role]
    return 0 if any(a.rows for a in of_role) else 1 if any(not a.refused for a in of_role) else 2


def allot(proofs: Sequence[Proof], share: float) -> None:
    """Shares the time that a change has among all its proofs: each tries one role, and more of them while ``share`` of the time
    allows it. Old answers that a rehearsal has shown to stay are left out, those first that take longest, where time is short."""
    for proof in proofs:
        proof.roles = proof.order[:1]
    for proof in sorted((p for p in proofs if p.rehearsed), key=Proof.spends, reverse=True):
        if sum(map(Proof.spends, proofs)) > WHOLE * share / SHARE * probe.LIMIT:
            proof.kept = ()
    for proof in proofs:
        for role in proof.order[1:]:
            more = sum(map(Proof.spends, proofs)) + proof.spends((role,))
            if more < share * probe.LIMIT:
                proof.roles = (*proof.roles, role)
