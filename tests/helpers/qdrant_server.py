"""A Qdrant server for the tests: Qdrant's REST API over the segment engine that Qdrant itself is built on (qdrant-edge-py).

with qdrant_server(tmp_path / "qdrant", version="1.17.1") as server:
    client = QdrantClient(server.url)
    server.fail("upsert_points", 507)
    server.kill()
    server.restart()
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

ROOT = Path(__file__).parents[2]
MESSAGES = {
    500: "Service internal error: No space left on device: WAL buffer size exceeds available disk space",
    503: "Shard temporarily unavailable: the shard is being recovered",
    507: "Insufficient storage: disk usage is over the quota of this node",
    429: "Rate limiting exceeded: Write rate limit exceeded, retry later",
}


class Call(NamedTuple):
    """A request that was answered: an operation of Qdrant's API by its name there, as upsert_points."""

    operation: str
    collection: str
    status: int


@dataclass
class QdrantServer:
    """A running server; the folder outlives it."""

    folder: Path
    version: str
    api_key: str | None
    read_only_key: str | None
    pid: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, at the port that it had before if it had one. Raises RuntimeError."""
        wanted = {name: getattr(self, name) for name in ("version", "api_key", "read_only_key", "port")}
        answer = template().start({"folder": str(self.folder), **wanted})
        self.pid, self.port = answer["pid"], answer["port"]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it and waits until it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        until = time.monotonic() + 20
        while psutil.pid_exists(self.pid):
            if time.monotonic() > until:
                raise TimeoutError(f"the Qdrant test server {self.pid} did not end")
            time.sleep(0.002)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is answered."""
        self.stop(signal.SIGKILL)

    def restart(self, version: str | None = None) -> None:
        """Starts it at the same port and over the same folder, as another version if one is named."""
        self.stop()
        self.version = version or self.version
        self.start()

    # Faults. ``kind`` is an operation of the API (upsert_points), or "write", "read", "any".

    def fail(
        self, kind: str, status: int, times: int = 1, *, message: str | None = None, applied: bool = False
    ) -> None:
        """The next requests of that kind are answered so; status -1 closes the connection without an answer. ``applied``: they
        have their effect all the same."""
        message = MESSAGES.get(status, f"Service internal error: status {status}") if message is None else message
        self.tell("faults", {"kind": kind, "times": times, "status": status, "message": message, "applied": applied})

    def disk_full(self, status: int = 507) -> None:
        """Every write fails until ``mend``."""
        self.fail("write", status, 1 << 40)

    def delay(self, kind: str, seconds: float, times: int = 1 << 40) -> None:
        """The next requests of that kind wait before they are looked at; others go by."""
        self.tell("faults", {"kind": kind, "times": times, "delay": seconds})

    def wait_timeout(self, kind: str, times: int = 1) -> None:
        """The next writes of that kind have their effect and answer ``wait_timeout``."""
        self.tell("faults", {"kind": kind, "times": times, "timed_out": True})

    def mend(self) -> None:
        """Takes every fault back."""
        self.tell("faults", None)

    def hold(self, status: str | None = "yellow") -> None:
        """Every collection has that status until ``hold(None)``; while it is not green, no optimizer runs."""
        self.tell("state", {"status": status})

    def lag(self, seconds: float) -> None:
        """Writes that do not wait have their effect so much after they are acknowledged."""
        self.tell("state", {"lag": seconds})

    def calls(self) -> list[Call]:
        """What was asked of it since it started or ``forget``."""
        return [Call(*one) for one in self.tell("calls")]

    def forget(self) -> None:
        self.tell("calls", "forget")

    def tell(self, what: str, value: Any = None) -> Any:
        return httpx.post(f"{self.url}/-/{what}", json=value, timeout=30).json()


@contextmanager
def qdrant_server(
    folder: str | Path, *, version: str = "1.19.0", api_key: str | None = None, read_only_key: str | None = None
) -> Iterator[QdrantServer]:
    """A server over the folder, which is made if it is not there."""
    server = QdrantServer(Path(folder), version, api_key, read_only_key)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Template:
    """The process that forks servers: one for each process of the tests."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.qdrant_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        atexit.register(self.end)

    def start(self, wanted: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.lock:
            self.process.stdin.write(json.dumps(wanted) + "\n")
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


@cache
def template() -> Template:
    return Template()
