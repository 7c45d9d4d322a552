"""Prefect's ephemeral server: kept out of Ctrl-C's reach, and ended at the next start where it outlived a client that was
killed: by the pid we wrote down and the time it was started, never by name."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tasks.base import prefect_api
from tasks.base.errors import FatalError

FILE = "prefect-server.json"
PATIENCE = 0.7
"""Seconds that a server has to end by itself when Ctrl-C ends the command."""


def end_orphan(home: str) -> None:
    """Ends recorded servers whose client is gone."""
    if "://" in home:
        return
    for record in Path(home).glob(f"*.{FILE}"):
        try:
            data = json.loads(record.read_text())
        except (OSError, ValueError):
            continue
        if not _alive(*data["client"]):
            for server in data["servers"]:
                if process := _alive(*server):
                    process.terminate()
            record.unlink(missing_ok=True)


@contextmanager
def serving(home: str) -> Iterator[None]:
    """Where no server of Prefect's is named, one of its own is up while the body runs, and until the process exits.

    Raises UsageError when one is named that does not answer."""
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

    prefect_api.require()
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        yield
        return
    with _recorded(home):
        _start()
        yield


def end_own(home: str) -> None:
    """Ends the servers that this process started, by force where they take long. Their database survives that."""
    process = psutil.Process()
    servers = _servers(process)
    for server in servers:
        with suppress(psutil.NoSuchProcess):
            server.terminate()
    _, alive = psutil.wait_procs(servers, timeout=PATIENCE)
    for server in alive:
        with suppress(psutil.NoSuchProcess):
            server.kill()
    if "://" not in home:
        _record(home, process).unlink(missing_ok=True)


def _start() -> None:
    from prefect.server.api.server import SubprocessASGIServer

    if not hasattr(signal, "pthread_sigmask"):
        return  # Prefect starts it itself
    # A blocked signal stays blocked in a child. The terminal sends its Ctrl-C to the server too, and the client would go
    # on asking one that is gone. A session of its own would keep it from the hang-up as well.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    server = SubprocessASGIServer()
    try:
        _await(server)
    except RuntimeError as error:
        server.stop()
        raise FatalError(
            "Prefect's own server did not come up; what is done is kept. Start the same command again when this machine has less to "
            f"do, or allow more than PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS ({_patience():.0f})"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _await(server: Any) -> None:
    """Starts a ``SubprocessASGIServer``, and returns when it is well. On a busy machine it takes a request long before it answers
    any, which Prefect itself takes for a failure. Raises RuntimeError."""
    until = time.monotonic() + _patience()
    try:
        server.start()
        return
    except httpx.TransportError as error:
        problem: Exception = error
    server.running = True  # as it is; else another would be started
    while time.monotonic() < until and server.server_process.poll() is None:
        try:
            if httpx.get(f"{server.api_url}/health").status_code == 200:
                return
        except httpx.TransportError as error:
            problem = error
        time.sleep(0.1)
    raise RuntimeError(str(problem))


def _patience() -> float:
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

    return float(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())


@contextmanager
def _recorded(home: str) -> Iterator[None]:
    """Writes down the child processes that Prefect starts while the body runs."""
    if "://" in home:
        yield
        return
    me = psutil.Process()
    path, stop = _record(home, me), threading.Event()

    def watch() -> None:
        seen: list[tuple[int, float]] = []
        while not stop.wait(0.2):
            servers = [(c.pid, c.create_time()) for c in _servers(me)]
            if servers and servers != seen:
                seen = servers
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(
                    json.dumps({"client": (me.pid, me.create_time()), "servers": servers, "at": time.time()})
                )

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
        path.unlink(missing_ok=True)


def _record(home: str, process: psutil.Process) -> Path:
    return Path(home) / f"{process.pid}.{FILE}"


def _servers(process: psutil.Process) -> list[psutil.Process]:
    children = []
    for child in process.children():
        try:
            if "prefect.server" in " ".join(child.cmdline()):
                children.append(child)
        except psutil.Error:  # it ended while we looked
            continue
    return children


def _alive(pid: int, created: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - created) < 1 else None
    except psutil.NoSuchProcess:
        return None
