"""What belongs to a run in this process."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from tasks.runs.plan import Plan, Request
from tasks.runs.run import Run
from tasks.runs.spending import Claims


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
