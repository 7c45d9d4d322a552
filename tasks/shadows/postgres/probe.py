"""Calls of a search function, as those who may execute it."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg import Error, errors, sql

from tasks.base.errors import VerificationRefused
from tasks.base.words import some
from tasks.shadows.postgres.answers import Answer, Answers, without
from tasks.stores.postgres.catalogue import Function
from tasks.stores.postgres.connection import Connection

Statement = str | sql.Composed
LIMIT = 0.2
"""Seconds that trying functions within a switch may take in all."""
COMPARED = 50
"""Of an answer, the rows that are looked at."""
PASSING = (
    errors.QueryCanceled,
    errors.LockNotAvailable,
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.AdminShutdown,
)
"""What says nothing of the function: the change is tried again."""


@dataclass(frozen=True)
class Role:
    """Who searches."""

    name: str
    taken: bool
    """Whether our own role may act as this one."""


class TooSlow(VerificationRefused):
    """The calls take longer than a switch may last."""


class Different(VerificationRefused):
    """People would be answered otherwise. An index whose rows others change meanwhile may find others, too."""


@dataclass
class Clock:
    """The time that trying functions within one change has taken so far: calls, and what becomes of them."""

    change: str = "switch"
    seconds: float = 0.0

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Raises TooSlow once what is tried of the function takes it beyond the limit."""
        started = time.perf_counter()
        try:
            yield
        except errors.QueryCanceled as canceled:
            raise self._over(name) from canceled
        self.seconds += time.perf_counter() - started
        if self.seconds > LIMIT:
            raise self._over(name)

    @property
    def end(self) -> sql.Composed:
        """The statement that ends a call when the time is over."""
        left = max(1, math.ceil((LIMIT - self.seconds) * 1000))
        return sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(left))

    def _over(self, name: str) -> TooSlow:
        return TooSlow(
            f"{name} takes longer to be tried than a {self.change} may last ({LIMIT * 1000:.0f} ms), so nothing was changed: "
            "try when the database is less busy"
        )


@dataclass(frozen=True)
class Probe:
    """The calls of one function."""

    function: Function
    calls: Mapping[tuple[str, int], str]
    """By the role that calls and the dimensions of the query, SQL of a call."""
    roles: tuple[Role, ...]
    settings: Mapping[str, str]
    """What policies and filters read."""
    others: Mapping[tuple[str, int], Sequence[str]] = field(default_factory=dict)
    """Of each call, those that may stand in for it."""
    exact: Answers = field(default_factory=dict)
    """What exact search gives each role after the change."""
    unsteady: frozenset[str] = frozenset()
    """Columns that are others each time that they are asked for."""

    def ask(self, connection: Connection, role: str, dimensions: int, *before: Statement) -> Answer:
        """What a role gets for a query of so many dimensions, after the statements ``before``."""
        return ask(connection, self.calls[role, dimensions], role, self.settings, *before)

    def compared(self, answers: Answers) -> Answers:
        """What of these answers is compared with others."""
        return without(answers, self.unsteady)

    @property
    def taken(self) -> list[str]:
        """Those who can be tried."""
        return [role.name for role in self.roles if role.taken]

    @property
    def notes(self) -> list[str]:
        """What was not tried, and for want of what."""
        names = [role.name for role in self.roles if not role.taken]
        granted = ", ".join(sql.Identifier(name).as_string() for name in names)
        return (
            [f"{self.function.name} was not tried as {some(names)}: GRANT {granted} TO CURRENT_USER"] if names else []
        )


def ask(connection: Connection, call: str, role: str, settings: Mapping[str, str], *before: Statement) -> Answer:
    """What a role gets for a call, of which nothing is kept; after the statements ``before``."""
    answer = Answer()
    try:
        with connection.transaction(force_rollback=True):
            # A function's sixth call may get another plan, and a filtered search by another plan finds other rows.
            connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            for statement in before:
                connection.execute(statement)
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
            cursor = connection.execute(call)
            answer = Answer(
                tuple(tuple(map(_comparable, row)) for row in cursor),
                columns=tuple(c.name for c in cursor.description or ()),
            )
    except PASSING:
        raise
    except Error as e:
        if connection.closed:
            raise
        answer = Answer(refused=type(e).__name__, words=" ".join((e.diag.message_primary or "").split()))
    return answer


def _comparable(value: Any) -> Any:
    """NaN, the distance from a zero vector, equals itself."""
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def literal(vector: str, kind: str) -> str:
    """SQL of a query's vector, in pgvector's text, as an argument of the type ``kind``."""
    text = vector.replace("[", "{").replace("]", "}") if kind.endswith("[]") else vector
    return f"{sql.Literal(text).as_string()}::{kind}"


def roles(connection: Connection, function: Function) -> tuple[Role, ...]:
    """Those who may execute the function and can be somebody: they log in, or others act as them."""
    rows = connection.execute(
        "SELECT r.rolname, pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END) "
        "FROM pg_roles r "  # from 16 on a member may not be let act as the role
        "WHERE r.rolname !~ '^pg_' AND (NOT r.rolsuper OR r.rolname = current_user) "
        "AND has_function_privilege(r.oid, %s::oid, 'EXECUTE') AND has_schema_privilege(r.oid, to_regnamespace(quote_ident(%s)), 'USAGE') "
        "AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid)) ORDER BY r.rolname <> %s, 1",
        (function.oid, function.schema, function.owner),
    ).fetchall()
    return tuple(Role(*row) for row in rows)


def refuse(lines: Sequence[str]) -> None:
    """Raises Different with all differences, which rolls the change back."""
    if lines:
        raise Different("people would be answered otherwise: " + "; ".join(lines))
