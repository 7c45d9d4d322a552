"""Documents onto one more model, by processes that are killed while an application writes."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.served_tables import Served
from tests.kill.moments import RUN
from tests.kill.processes import Place, new_database

pytestmark = [pytest.mark.timeout(900), pytest.mark.whole]

NEW = "hashing/768"
OPTIONS = ("-p", f"target_model={NEW}", "-p", "batch_rows=10", "-p", "workers=1")


def loaded(connection: Connection, batches: int) -> bool:
    if connection.execute("SELECT to_regclass('vecferry.batch')").fetchone() == (None,):
        return False
    query = "SELECT count(*) >= %s FROM vecferry.batch WHERE stage = 'load' AND status = 'done' AND run_id = %s"
    return connection.execute(query, (batches, RUN)).fetchone() == (True,)


def test_a_run_that_is_killed_goes_on(prefect_url: str, postgres: Callable[[str], str], tmp_path: Path) -> None:
    """Wherever it was, with the vectors of what is said by then, of both models, and no others."""
    database = f"killed_{tmp_path.name}"[:60]
    new_database(postgres("postgres"), database)
    place = Place(postgres(database), tmp_path / "home", prefect_url)
    with connect(place.url, "vecferry test") as connection:
        connection.execute("CREATE EXTENSION vector")
        served = Served(connection, documents=40)
        served.init(NEW)
        change = served.change()
        for batches in (0, 1, 4, 9):
            process = place.start("run", "multi-model", *OPTIONS, "--run-id", RUN)
            until = time.monotonic() + 200
            while not loaded(connection, batches):
                assert process.poll() is None, place.log[-2000:]
                assert time.monotonic() < until, place.log[-2000:]
                time.sleep(0.01)
            process.kill()
            process.wait()
            change()
        assert place.start("run", "multi-model", *OPTIONS, "--run-id", RUN).wait() == 0, place.log[-2000:]
        change()
        assert place.start("cutover", RUN).wait() == 0, place.log[-2000:]
        assert served.active() == NEW
        assert served.vectors(NEW) == served.expected(NEW)
        change()
        assert place.start("catch-up", RUN).wait() == 0, place.log[-2000:]
        assert served.vectors(NEW) == served.expected(NEW)
        assert served.vectors(served.source) == served.expected(served.source)
