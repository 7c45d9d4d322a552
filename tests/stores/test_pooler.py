"""A pooler in front of PostgreSQL: its transaction mode is refused with the way out, its session mode works."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tasks.base.errors import UsageError
from tasks.runs import holding, ledger_versions
from tasks.stores.postgres.connection import connect
from tests.helpers.servers import free_port

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="needs pgbouncer: apt-get install pgbouncer")


@contextmanager
def pgbouncer(url: str, mode: str) -> Iterator[str]:
    """A URL of the same database through a pool of that mode."""
    assert PGBOUNCER
    server, port = conninfo_to_dict(url), free_port()
    folder = Path(tempfile.mkdtemp(prefix="vecferry-pgbouncer-"))  # not below pytest's, which only its user may enter
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{server['dbname']} = host={server['host']} dbname={server['dbname']} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\nlogfile = {folder / 'pgbouncer.log'}\nmin_pool_size = 2\n"
    )
    user = []
    if os.geteuid() == 0:  # it refuses to run as root; the embedded server has a user of its own then
        shutil.chown(folder, "pgserver")
        user = ["-u", "pgserver"]
    process = subprocess.Popen([PGBOUNCER, "-q", *user, str(config)], stderr=subprocess.DEVNULL)
    pooled = f"postgresql://postgres@127.0.0.1:{port}/{server['dbname']}"
    try:
        _wait(pooled, process)
        yield pooled
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 120
    while True:
        try:
            psycopg.connect(url, autocommit=True, prepare_threshold=None).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > until or process.poll() is not None:
                raise
            time.sleep(0.1)


def test_a_transaction_pooler_is_refused(database: str) -> None:
    """Idle or busy, its first connection is refused, and the message names the one to use instead."""
    with pgbouncer(database, "transaction") as url:
        with pytest.raises(UsageError, match="session mode") as refused:
            connect(url)
        assert "127.0.0.1" in str(refused.value)
        with psycopg.connect(url, prepare_threshold=None) as busy:
            busy.execute("SELECT 1")  # an open transaction keeps its server to itself
            with pytest.raises(UsageError, match="transaction pooler"):
                connect(url)


def test_a_session_pooler_works(database: str) -> None:
    """A run is held by its lock as over a direct connection."""
    with pgbouncer(database, "session") as url:
        with connect(url) as connection:
            ledger_versions.ensure(connection)
        with (
            holding.sole_runner(url, "pooled"),
            pytest.raises(UsageError, match="pooled"),
            holding.sole_runner(url, "pooled"),
        ):
            pass


def test_without_a_pooler_no_second_connection_is_made(
    postgres: Callable[[str], str], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A direct connection is known by the process id that it was told at the start."""
    opened: list[str] = []
    plain = psycopg.connect
    monkeypatch.setattr(psycopg, "connect", lambda *a, **k: opened.append(a[0]) or plain(*a, **k))
    connect(f"{database}&connect_timeout=9" if "?" in database else f"{database}?connect_timeout=9").close()
    assert len(opened) == 1
