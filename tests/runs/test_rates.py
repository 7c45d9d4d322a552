"""The rate that processes share, kept in PostgreSQL."""

import logging
import os
import time
from functools import partial

import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import UsageError
from tasks.begin import begin
from tasks.embedders.openai.limiter import Limiter
from tasks.embedders.openai.rate import Rate
from tasks.planning.registry import draft
from tasks.runs import ledger_versions
from tasks.runs.rates import LedgerRates
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.live_table import Table
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.sent import recorded

HEADERS = {"x-ratelimit-limit-requests": "60000", "x-ratelimit-remaining-requests": "59999"}


@pytest.fixture
def rates(connection: Connection, database: str) -> LedgerRates:
    ledger_versions.ensure(connection)
    return LedgerRates(partial(connect, database))


def kept(connection: Connection) -> Rate:
    row = connection.execute("SELECT state FROM vecferry.rate").fetchone()
    assert row
    return Rate.from_json(row[0].encode())


def test_a_request_takes_one_statement(rates: LedgerRates, connection: Connection) -> None:
    """To take it and to tell of the last answer, while no other process has taken any; what those did is seen all the same."""
    limiter, other = Limiter(account="a", rates=rates), Limiter(account="a", rates=LedgerRates(rates.connect))
    limiter.settle(limiter.acquire(lambda: 10), 10, HEADERS)
    with recorded() as statements:
        for _ in range(5):
            limiter._taken = float("-inf")  # as if little was wanted
            limiter.settle(limiter.acquire(lambda: 10), 10, {})
    assert sum("rates.py" in one.where for one in statements) == 5
    for _ in range(3):
        other._taken = limiter._taken = float("-inf")
        other.acquire(lambda: 10)
        limiter.acquire(lambda: 10)
    assert kept(connection).requests.sent == 12
    assert kept(connection).requests.flying == 6


def test_what_is_remembered_of_the_clock_goes_on(rates: LedgerRates, connection: Connection) -> None:
    """A process that has asked for nothing for a while knows what time it is for all: what it says of the provider's answers would be
    dated too early, and what came back meanwhile would count twice."""
    told = list[float]()
    for _ in range(2):
        rates.change("a", lambda kept, now, behind: told.append(now) or (b"{}", None))
        time.sleep(0.3)
    rates.change("a", lambda kept, now, behind: told.append(now) or (b"{}", None))
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row
    assert row[0] - 0.1 < told[-1] <= row[0]


def test_an_answer_that_is_paid_for_is_not_lost(
    rates: LedgerRates, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it cannot be told to the others, it is told later."""
    limiter = Limiter(account="a", rates=rates)
    ticket = limiter.acquire(lambda: 10)
    name = connection.info.dbname
    connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with caplog.at_level(logging.WARNING, "vecferry"):
        limiter.settle(ticket, 10, HEADERS)
    assert "read-only" in caplog.text
    connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert not kept(connection).answered
    limiter.acquire(lambda: 10)
    assert kept(connection).answered


def test_a_right_that_is_missing_is_named_before_anything_is_bought(
    connection: Connection, database: str, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a plan, and by a run that goes on: with the statement that grants it."""
    Table(connection, rows=1)
    target = {"table": "docs", "text": "content"}
    form = parse(Text384To1536, {"targets": [target], "embedder": "openai/text-embedding-3-small"})
    begin(form.request(), "one", form.given(), asks_model=False)
    role = f"buyer_{connection.info.dbname}"
    connection.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA vecferry TO {role}; "
        f"GRANT ALL ON ALL TABLES IN SCHEMA vecferry TO {role}; REVOKE UPDATE ON vecferry.rate FROM {role}"
    )
    needed = f"GRANT SELECT, INSERT, UPDATE, DELETE ON vecferry.rate TO {role}"
    monkeypatch.setenv("DATABASE_URL", database.replace("//postgres:", f"//{role}:"))
    try:
        with connect(os.environ["DATABASE_URL"]) as theirs:
            problems = draft(theirs, form.request(), "two").problems
        assert sum(problem.endswith(needed) for problem in problems) == 1
        assert not any("vecferry.claim" in problem for problem in problems)
        with pytest.raises(UsageError, match=needed):
            begin(form.request(), "one", form.given())
        assert not provider.calls
        connection.execute(needed)
        begin(form.request(), "one", form.given())
        assert len(provider.calls) == 1
    finally:
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
