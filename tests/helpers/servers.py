"""Real servers on a free port of this machine, for the tests and the benchmarks."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil


@dataclass(frozen=True)
class Served:
    """A running ``chroma run``."""

    port: int
    process: psutil.Process


@contextmanager
def chroma_server(path: str | Path) -> Iterator[Served]:
    """A ``chroma run`` over the directory: how Chroma is used in production, and a process that is not ours."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(path), "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/v2/heartbeat")
        yield Served(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """One real Prefect server for all processes; yields its API's URL."""
    port = free_port()
    program = str(Path(sys.executable).parent / "prefect")
    command = [program, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    process = subprocess.Popen(
        command,
        env=os.environ | quiet | {"PREFECT_HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", 120)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(url: str, seconds: float = 60) -> None:
    """Returns once ``url`` answers 200. Raises TimeoutError when it does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer within {seconds:.0f} s")
