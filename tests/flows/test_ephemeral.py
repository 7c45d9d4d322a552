"""Prefect's server of the command's own, where the machine has much to do."""

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

from flows.command import ephemeral
from flows.command.carry_out import carry_out
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import FatalError
from tasks.begin import begin
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import Table

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def server() -> Iterator[SubprocessASGIServer]:
    started = SubprocessASGIServer()
    yield started
    started.stop()


@pytest.mark.whole
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


@pytest.mark.whole
def test_a_server_that_cannot_come_up(server: SubprocessASGIServer) -> None:
    """One line says so, and what to do."""
    with (
        temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 1}),
        pytest.raises(FatalError, match="own server did not come up; what is done is kept"),
    ):
        ephemeral._start()
    assert not server.running


@pytest.mark.parametrize("error", [asyncio.CancelledError(), concurrent.futures.CancelledError()])
def test_a_flow_that_prefect_calls_off(connection: Connection, prefect: None, error: BaseException) -> None:
    """One line says so, and how to go on."""
    Table(connection, rows=3)
    targets = [{"table": "docs", "text": "content"}]
    form = parse(Text384To1536, {"targets": targets, "embedder": "hashing/1536"})
    begin(form.request(), "off", form.given())

    def call() -> dict[str, Any]:
        raise error

    with pytest.raises(
        FatalError, match="Prefect called verify of off off; what is done is kept: see `vecferry status off`"
    ):
        carry_out(call, "verify", "off", "DATABASE_URL", as_json=True)


def _listens(process: psutil.Process) -> bool:
    try:
        ports = [c.laddr.port for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        return (
            "prefect.server.api.server:create_app" in process.cmdline() and bool(ports) and process.pid != os.getpid()
        )
    except psutil.Error:
        return False
