"""Several processes that work on one run, as on several machines: what they share is decided in PostgreSQL."""

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.begin import begin
from tasks.embedders.openai.server import CONCURRENCY, PROBES
from tasks.stores.postgres.connection import Connection
from tests.helpers.buyer import text_of
from tests.helpers.live_table import Table
from tests.helpers.openai_server import OpenAIServer

Buyer = Callable[[int, int], "subprocess.Popen[str]"]
"""Starts a process that wants the texts from one number to another."""
MODEL = "openai/text-embedding-3-small"


@pytest.fixture
def buyer(provider: OpenAIServer, connection: Connection) -> Buyer:
    return _of_run(connection)


def _of_run(connection: Connection, **parameters: object) -> Buyer:
    Table(connection, rows=1)
    form = parse(Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "embedder": MODEL, **parameters})
    begin(form.request(), "shared", form.given())

    def start(first: int, last: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.buyer", "shared", str(first), str(last)],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def bought(provider: OpenAIServer) -> Counter[str]:
    return Counter(text for call in provider.answered() for text in call.inputs if text not in PROBES)


def vectors(provider: OpenAIServer, first: int, last: int) -> list[str]:
    made = [provider.vector(text_of(number)) for number in range(first, last)]
    return [hashlib.sha256(np.asarray(vector, np.float32).tobytes()).hexdigest() for vector in made]


def test_each_text_is_bought_once(buyer: Buyer, provider: OpenAIServer, connection: Connection) -> None:
    """Two processes want texts of which most are the same: each is bought by one of them, and both have all vectors."""
    provider.delay = 0.1
    one, two = buyer(0, 300), buyer(100, 400)
    for process, first, last in ((one, 0, 300), (two, 100, 400)):
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        assert out.split() == vectors(provider, first, last)
    count = bought(provider)
    assert len(count) == count.total() == 400
    assert connection.execute("SELECT bought FROM vecferry.run").fetchone() == (400,)
    assert connection.execute("SELECT count(*) FROM vecferry.claim").fetchone() == (0,)


def test_a_process_that_is_killed_stands_in_nobodys_way(
    buyer: Buyer, provider: OpenAIServer, connection: Connection
) -> None:
    """Another one that waits for its texts goes on within seconds, and buys what it had not kept."""
    provider.plant(delay=50, after=12)  # then the rest of its requests hang
    dying = buyer(0, 400)
    until(lambda: connection.execute("SELECT FROM vecferry.vector LIMIT 1").fetchone() is not None)
    waiting = buyer(0, 400)
    looks = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT stop FROM vecferry.run%'"  # between two of its tries
    until(lambda: connection.execute(looks).fetchone() is not None)
    assert waiting.poll() is dying.poll() is None
    dying.kill()
    dying.wait()
    provider.heal()
    died, calls = time.monotonic(), len(provider.calls)
    kept = {bytes(row[0]) for row in connection.execute("SELECT content FROM vecferry.vector").fetchall()}
    until(lambda: any(call.at > died for call in provider.calls))
    assert next(call.at for call in provider.calls if call.at > died) - died < 5
    out, errors = waiting.communicate(timeout=120)
    assert (waiting.returncode, errors) == (0, "")
    assert out.split() == vectors(provider, 0, 400)
    count = bought(provider)
    assert len(count) == 400
    twice = [text for text, times in count.items() if times > 1]
    assert all(hashlib.sha256(text.encode()).digest() not in kept for text in twice), "what was kept was bought again"
    assert len(twice) <= CONCURRENCY * provider.max_inputs, "more than was under way"
    assert 0 < len(kept) < 400
    assert calls < len(provider.calls)


def test_a_budget_holds_for_all_of_them(provider: OpenAIServer, connection: Connection) -> None:
    """Each knows before a request what the others have spent; the budget is passed at most by what they have under way."""
    price = 0.02 / 1e6 * provider.tokens_of(text_of(1000))
    buyer = _of_run(connection, budget_usd=2000 * price)
    provider.max_inputs, provider.delay = 100, 0.2
    one, two = buyer(0, 3000), buyer(3000, 6000)
    for process in (one, two):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "the budget of $" in errors
    spent = connection.execute("SELECT dollars FROM vecferry.run").fetchone()
    assert spent
    assert 0 < spent[0] <= (2000 + CONCURRENCY * provider.max_inputs) * price
    assert len(bought(provider)) == bought(provider).total()


def test_the_rate_of_an_account_is_theirs_together(buyer: Buyer, provider: OpenAIServer) -> None:
    """Three processes keep under one account's limits from the start: none of them is ever refused."""
    provider.limit(requests=480, tokens=10_000_000, full=False)
    provider.delay = 0.2
    processes = [buyer(first, first + 500) for first in (0, 500, 1000)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    assert not provider.answered(429)
    assert len(bought(provider)) == bought(provider).total() == 1500


def until(seen: Callable[[], bool]) -> None:
    """Waits for it, up to a minute."""
    for _ in range(1200):
        if seen():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")
