"""A derived function is called once where its vectors are about to lie, before any of them is made: what PostgreSQL has against it
is told before anything is paid."""

import time
from collections.abc import Callable
from functools import partial
from itertools import product

from psycopg import Error, sql

from tasks.base.errors import UsageError
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.postgres import arguments, dispatcher, probe, search_functions, search_times
from tasks.shadows.postgres.answers import Answer
from tasks.shadows.postgres.called import Origin, origin_of
from tasks.shadows.postgres.live.place import side_table
from tasks.stores.postgres.catalogue import find
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import of_table, shown
from tasks.stores.postgres.places import LivePlace


def call_once(connection: Connection, run: Run, target: Target[LivePlace]) -> None:
    """Makes the function, calls it, and takes it back. Raises UsageError where it fails for the arguments that the application's own
    is called with; what has vectors already has been tried."""
    there = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(side_table(target.place))).fetchone()
    if there != (False,):
        return
    problems, _ = search_times.looked_at(connection, run.plan.request, target)
    if problems:
        raise UsageError(f"{'; '.join(problems)}. Nothing was paid yet")
    for function in target.place.functions:
        if origin := origin_of(connection, target, function):
            _call_once(connection, run, target, origin)


def _call_once(connection: Connection, run: Run, target: Target[LivePlace], origin: Origin) -> None:
    function = of_table(target.place.schema, origin.function.schema, origin.function.name)
    settings = run.plan.request.own.get("probe_settings", {})
    called, _ = dispatcher.names(run.run_id, target, function)
    with connection.transaction(force_rollback=True):
        try:
            with connection.transaction():
                query = search_functions.make(connection, target, function, called)
        except Error as error:
            raise _refusal(target, function, error.diag.message_primary or str(error)) from error
        made = find(connection, target.place.schema, called)
        assert made
        assert query
        number = query.query
        old, new = (
            f"[{', '.join('1' * (size or 1))}]" for size in (target.place.live.layout.dimensions, target.dimensions)
        )
        sample = search_times.sampled(connection, target.place.live)
        tries = (arguments.calls(f, number, sample) for f in (origin.function, made))
        roles = [r.name for r in probe.roles(connection, origin.function) if r.taken]
        if origin.function.definer:  # what is made of it is its owner's alone
            roles = [role for role in roles if role == origin.function.owner]
        failing = Answer()
        for role, (call_old, call_new) in product(roles, zip(*tries, strict=True)):
            if (failing := probe.ask(connection, call_old(old), role, settings)).refused:
                continue
            answer = probe.ask(connection, call_new(new), role, settings)
            if answer.refused:
                raise _refusal(target, function, answer.words)
            _refuse_slow(
                f"{target.place.schema}.{function}", partial(probe.ask, connection, call_new(new), role, settings)
            )
            return
        if failing.refused and function != target.place.write_function:
            raise UsageError(
                f"{shown(target.place.schema, function)} fails whatever it is called with: {failing.words}. So a switch of it could not be "
                "proven. Nothing was paid yet: set what it reads with `probe_settings`, or name another function with `function`"
            )


def _refuse_slow(name: str, ask: Callable[[], object]) -> None:
    """A call that takes longer than a switch may last could never be proven."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - started)
        if seconds[-1] <= probe.LIMIT:
            return
    raise UsageError(
        f"{name} takes {min(seconds) * 1000:.0f} ms even before there are new vectors to search, and a switch of it may take "
        f"{probe.LIMIT * 1000:.0f} ms in all. Nothing was paid yet: make it faster, or name another function with `function`"
    )


def _refusal(target: Target[LivePlace], function: str, words: str) -> UsageError:
    given = "the `function_sql` of" if target.place.body_of(function) else "what is derived from"
    body = "" if function == target.place.write_function else "give its body for them with `function_sql`, or "
    option = "write_function" if function == target.place.write_function else "function"
    return UsageError(
        f"{given} {shown(target.place.schema, function)} for the new vectors fails: {words}. Nothing was paid yet: {body}"
        f"name another function with `{option}`"
    )
