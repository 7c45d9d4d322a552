"""What belongs to a run in this process."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pyarrow as pa
import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import FatalError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.begin import begin
from tasks.runs.plan import Plan, Request
from tasks.runs.run import Run, open_run
from tasks.runs.spending import Claims
from tasks.runs.vectors import embedded
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import Table
from tests.helpers.openai_server import OpenAIServer


def opened(run_id: str = "one", url: str = "postgresql://nowhere") -> Run:
    """The run, opened anew, as each task does."""
    request = Request(
        flow="any",
        source={},
        database="DATABASE_URL",
        embedder=None,
        batch_rows=10,
        limit=None,
        rollback_days=7,
    )
    return Run(Plan(run_id, request, ()), url, "home")


def test_tasks_share_what_their_run_owns() -> None:
    """Opened by many threads at once, it is made once; another run, and the same name in another database, have their own."""
    made: list[Claims] = []
    start = threading.Barrier(8)

    def make() -> Claims:
        made.append(Claims())
        return made[-1]

    def work(_: int) -> Claims:
        start.wait()
        return opened().own(Claims, make)

    with opened().kept_open(), ThreadPoolExecutor(8) as threads:
        assert set(threads.map(work, range(8))) == {made[0]}
        assert len(made) == 1
        assert opened("two").own(Claims, Claims) is not made[0]
        assert opened(url="postgresql://elsewhere").own(Claims, Claims) is not made[0]


def test_what_a_run_owns_is_let_go_with_it() -> None:
    """When the last that keeps it open is done, and not before, even where that one failed."""
    with opened().kept_open():
        first = opened().own(Claims, Claims)
        try:
            with opened().kept_open():
                raise RuntimeError("a flow within a flow")
        except RuntimeError:
            assert opened().own(Claims, Claims) is first
    assert opened().own(Claims, Claims) is not first


def test_nothing_is_bought_for_a_run_that_was_let_go(connection: Connection, provider: OpenAIServer) -> None:
    """Neither by a thread that has outlived it, whether the run had bought before or not, until somebody works on it again."""
    Table(connection, rows=1)
    form = parse(
        Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "embedder": "openai/text-embedding-3-small"}
    )
    begin(form.request(), "one", form.given())
    run = open_run("one", DEFAULT_DATABASE)

    def buy(text: str) -> None:
        embedded(run, run.plan.targets[0], pa.table({"document": [text]}))

    with run.kept_open():
        pass
    calls = len(provider.calls)
    with pytest.raises(FatalError, match="run one has ended"):
        buy("before it bought any")
    with run.kept_open():
        buy("one")
    with pytest.raises(FatalError, match="run one has ended"):
        buy("after it bought one")
    assert len(provider.calls) == calls + 1
    begin(form.request(), "one", form.given())
    with run.kept_open():
        buy("two")
    assert connection.execute("SELECT requests, bought FROM vecferry.run").fetchone() == (len(provider.answered()), 2)


def test_connections_are_the_runs_own(database: str) -> None:
    """They are kept while somebody works on the run, and closed when it is let go, after what ends its work through them."""
    run, other = opened(url=database), opened("two", database)

    class Ends:
        used: ClassVar[list[int]] = []

        def close(self) -> None:
            with run.connection() as connection:
                self.used.append(connection.info.backend_pid)

    with run.connection() as once:
        pass
    assert once.closed
    with other.kept_open(), run.kept_open():
        with run.connection() as kept:
            first = kept.info.backend_pid
        with opened(url=database).connection() as second, other.connection() as others:
            assert second.info.backend_pid == first != others.info.backend_pid
        run.own(Ends, Ends)
    assert Ends.used == [first]
    assert kept.closed
