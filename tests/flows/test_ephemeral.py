"""Prefect's server of the command's own, where the machine has much to do."""

import os
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from prefect.server.api.server import SubprocessASGIServer

from flows.command import ephemeral
from tasks.base.errors import FatalError

pytestmark = [pytest.mark.whole, pytest.mark.timeout(300)]


@pytest.fixture
def server() -> Iterator[SubprocessASGIServer]:
    started = SubprocessASGIServer()
    yield started
    started.stop()


def test_a_server_that_takes_a_request_and_does_not_answer(server: SubprocessASGIServer) -> None:
    """It is waited for."""

    def stop_for_a_while() -> None:
        while not (children := [c for c in psutil.Process().children() if _listens(c)]):
            time.sleep(0.005)
        children[0].suspend()
        time.sleep(7)  # the client's patience is five seconds
        children[0].resume()

    watcher = threading.Thread(target=stop_for_a_while, daemon=True)
    watcher.start()
    ephemeral._start()
    watcher.join()
    assert server.running


def test_a_server_that_cannot_come_up(server: SubprocessASGIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says so, and what to do."""
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "1")
    with pytest.raises(FatalError, match="own server did not come up; what is done is kept"):
        ephemeral._start()
    assert not server.running


def _listens(process: psutil.Process) -> bool:
    try:
        ports = [c.laddr.port for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        return (
            "prefect.server.api.server:create_app" in process.cmdline() and bool(ports) and process.pid != os.getpid()
        )
    except psutil.Error:
        return False
