"""A restore into a column of a live table that is killed halfway."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.helpers.live import make_table
from tests.kill.processes import Place, new_database

TARGETS = '[{"table": "docs", "text": "content"}]'


def test_a_restore_that_is_killed_goes_on(prefect_url: str, postgres: Callable[[str], str], tmp_path: Path) -> None:
    """`kill -9` in the middle of a batch, while somebody holds a row: others write to all rows but ten meanwhile, what was written
    stays, and the same command ends with every old vector in the column."""
    new_database(postgres("postgres"), f"restore_{tmp_path.name}"[:60])
    place = Place(postgres(f"restore_{tmp_path.name}"[:60]), tmp_path / "home", prefect_url)
    with place.connection() as connection, psycopg.connect(place.url) as holder:
        make_table(connection, 120)
        backup = ("snapshot", "text-384-to-1536", "-p", f"targets={TARGETS}", "-p", "embedder=hashing/1536")
        assert place.start(*backup, "-p", "batch_rows=50", "--run-id", "r", cold=False).wait() == 0, place.log

        connection.execute("ALTER TABLE docs ADD COLUMN old vector(384)")  # else it would wait for the holder
        holder.execute("SELECT 1 FROM docs WHERE id = 75 FOR UPDATE")
        process = place.start("restore", "r", "--into", "old", cold=False)
        until = time.monotonic() + 60
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%old%'"
        while not connection.execute(waiting).fetchone():
            assert process.poll() is None, place.log
            assert time.monotonic() < until
            time.sleep(0.02)
        free = connection.execute("SELECT count(*) FROM (SELECT 1 FROM docs FOR UPDATE SKIP LOCKED) AS f").fetchone()
        assert free
        assert free[0] >= 110
        process.kill()
        assert process.wait() == -signal.SIGKILL
        holder.rollback()

        filled = "SELECT count(old), count(*) FILTER (WHERE old = embedding) FROM docs"
        half = connection.execute(filled).fetchone()
        assert half
        assert 50 <= half[0] < 80
        assert half[0] == half[1]
        assert place.start("restore", "r", "--into", "old", cold=False).wait() == 0, place.log
        assert connection.execute(filled).fetchone() == (120, 120)
        done = "SELECT sum(rows), count(*) FROM vecferry.batch WHERE stage = 'restore' AND status = 'done'"
        assert connection.execute(done).fetchone() == (120, 3)
