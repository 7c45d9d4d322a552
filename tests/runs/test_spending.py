"""What was paid is in the ledger and its vectors are kept, whichever way a run ends."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from flows import migrate
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from tasks.base.errors import FatalError
from tasks.embedders.openai.server import PROBES
from tasks.embedders.registry import open_embedder
from tasks.runs import spending
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import Table
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.terminal import COMMAND

pytestmark = [pytest.mark.usefixtures("prefect"), pytest.mark.timeout(200)]

MODEL = "openai/text-embedding-3-small"
ROWS = 120


@pytest.fixture
def table(connection: Connection, provider: OpenAIServer) -> Table:
    provider.max_inputs, provider.delay = 2, 0.2  # many requests a batch, so that there always are some under way
    return Table(connection, rows=ROWS, new=provider.vectors)


def run(run_id: str = "paid", **parameters: Any) -> dict[str, Any]:
    target = {"table": "docs", "text": "content"}
    return text_384_to_1536(
        **{"targets": [target], "embedder": MODEL, "batch_rows": 30, "gates": {"sample": 1}, **parameters},
        run_id=run_id,
    )


def accounted(connection: Connection, provider: OpenAIServer) -> None:
    """The ledger has every answer that was paid for, and every vector of them is kept. Nothing is under way any more."""
    time.sleep(2 * provider.delay)
    spent, billed = spending.spending(connection, "paid"), provider.answered()
    assert (spent.requests, spent.tokens) == (len(billed), sum(call.tokens for call in billed))
    assert spent.dollars == pytest.approx(spent.tokens * 0.02 / 1e6)
    kept = connection.execute("SELECT count(*) FROM vecferry.vector").fetchone()
    assert kept == (len(bought(provider)),)


def bought(provider: OpenAIServer) -> Counter[str]:
    return Counter(text for call in provider.answered() for text in call.inputs if text not in PROBES)


def resumed(connection: Connection, provider: OpenAIServer, run_id: str = "paid") -> None:
    """A second start, or a second run, buys what was not bought, the sample of verification aside; the ledger has that too."""
    provider.heal()
    provider.delay = 0
    open_embedder(MODEL).account.server.mend()  # type: ignore  # as another process would find it
    assert run(run_id)["state"] == "verified"
    times = bought(provider)
    assert times.total() == len(times) + 1
    spent = [spending.spending(connection, name) for name in dict.fromkeys(("paid", run_id))]
    assert sum(one.requests for one in spent) == len(provider.answered())
    assert sum(one.tokens for one in spent) == sum(call.tokens for call in provider.answered())
    assert sum(one.bought for one in spent) == len(times)


def test_a_fatal_answer_to_another_batch(connection: Connection, provider: OpenAIServer, table: Table) -> None:
    """Requests of the other workers are under way when it comes."""
    provider.plant(status=401, after=20)
    with pytest.raises(FatalError, match="401"):
        run(workers=4)
    accounted(connection, provider)
    resumed(connection, provider)


def test_a_budget_that_is_spent(connection: Connection, provider: OpenAIServer, table: Table) -> None:
    """The last that the budget allows is under way when another request no longer fits."""
    price = 0.02 / 1e6 * provider.tokens_of("what row 100 says of topic 1, version 101")
    with pytest.raises(FatalError, match="budget"):
        run(workers=4, budget_usd=50 * price)
    accounted(connection, provider)
    rollback(run_id="paid")
    resumed(connection, provider, "next")


def test_an_error_in_the_flow(
    connection: Connection, provider: OpenAIServer, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow fails while a task of it, which it does not wait for, has requests under way."""
    follow = migrate.catch_up

    def catch_up(*arguments: Any) -> Any:
        for _ in range(60):
            table.insert()
        return follow(*arguments)

    def index(*_: Any) -> None:
        before = len(provider.calls)
        until(lambda: len(provider.calls) > before + 4)
        raise RuntimeError("planted by the test")

    with monkeypatch.context() as failing:
        failing.setattr(migrate, "catch_up", catch_up)
        failing.setattr(migrate, "index", index)
        with pytest.raises(RuntimeError, match="planted"):
            run()
    accounted(connection, provider)
    resumed(connection, provider)


def test_a_model_that_is_no_good(connection: Connection, provider: OpenAIServer, table: Table) -> None:
    """The probe that shows it was paid for, too."""
    provider.dimensions, provider.takes_dimensions = 8, False
    with pytest.raises(FatalError):
        run(embedder="openai/text-embedding-ada-002")
    spent = spending.spending(connection, "paid")
    assert spent.requests == len(provider.answered()) == 1


@pytest.mark.slow
@pytest.mark.whole
def test_ctrl_c(connection: Connection, provider: OpenAIServer, table: Table) -> None:
    """What is answered within a moment is waited for."""
    words = ["run", "text-384-to-1536", "--run-id", "paid", "-p", 'targets=[{"table": "docs", "text": "content"}]']
    words += ["-p", f"embedder={MODEL}", "-p", "batch_rows=30", "-p", "gates.sample=1", "-p", "workers=3"]
    process = subprocess.Popen([COMMAND, *words], stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    until(lambda: len(provider.calls) > 20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in errors
    accounted(connection, provider)
    resumed(connection, provider)


def until(seen: Callable[[], bool]) -> None:
    """Waits for it, up to a minute."""
    for _ in range(1200):
        if seen():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")
