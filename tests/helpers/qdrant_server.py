"""A Qdrant server for the tests: Qdrant's REST API over the segment engine that Qdrant itself is built on (qdrant-edge-py).

    with qdrant_server(tmp_path / "qdrant", version="1.17.1") as server:
        client = QdrantClient(server.url)
        server.fail("upsert_points", 507)
        server.kill()
        server.restart()

What is real: the engine with its points, vectors, filters, payload indexes, scores, write-ahead log and error messages; a
process of its own that a kill ends. What is written here, after Qdrant's own API descriptions of 1.16 to 1.19 and compared with
them while it was written: HTTP, routes, names, aliases, configuration, keys, versions, limits, optimizers.

What a real server does otherwise:

- It passes over fields of a request that it does not know; this one refuses what qdrant-client's models do not know. Fields that
  the version of a server does not know are passed over here too.
- Its optimizers build graphs, merge segments, quantize and free what was deleted, and searches are approximate. Here nothing is
  built: every search is exact, segments_count stays, a collection past indexing_threshold is yellow for 0.2 s after a write, and
  then its points count as indexed. hnsw_config, quantization, on_disk, memory and optimizers are kept and answered, no more; a
  change of a sparse vector's modifier has no effect on scores. It is grey after a start while optimizations are pending; here
  only when a test says so.
- It defers whatever is past indexing_threshold under prevent_unoptimized, changed points too, and after a restart. Here only new
  points, while a test holds the optimizers, until the next start.
- It works on many requests at once. Here one comes after the other, a read never sees half of a write, and no write fails over
  another. Alias calls are atomic to readers in both.
- It acknowledges a write that does not wait as soon as that is in its log, and a kill does not lose it. Here it is done at once
  unless ``lag`` is set; what lags is lost by a kill. Its operation_id goes on after a start; here it begins anew.
- It flushes to a disk that survives its machine; here a kill loses nothing, a power cut may.
- It has shards, replicas, peers and shard keys: shard_number, replication_factor and the like are kept and answered, and
  a shard_key is passed over. No /cluster calls beyond reading, no JWT, no TLS, no gRPC, no /metrics, no /issues, no /quotas.
- Not here (501, or 404 for a path): full snapshots and snapshots by upload, groups, distance matrices, discover, context, formula
  and feedback queries, text queries and slice conditions, stopwords and stemmers of a text index, the search and recommend paths
  that 1.19 has dropped. MMR of sparse vectors is a 500 of the engine. Strict mode: batch sizes, limits, exact searches,
  unindexed filters and the count of points.
- A text of an error that the engine does not make itself is Qdrant's where it is short; of a body that is malformed it names the
  field, in other words than Qdrant's parser.
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

    def optimizing(self, seconds: float) -> None:
        """From now on a collection that is large enough for an index is yellow for so long after a change."""
        self.tell("state", {"optimizing": seconds})

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
