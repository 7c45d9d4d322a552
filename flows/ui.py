"""`make ui`: a Prefect server on this machine, the deployments, and a worker that runs them, until Ctrl-C.

It keeps its database in VECFERRY_HOME (``PREFECT_HOME`` overrides that) and listens on ``PREFECT_SERVER_API_PORT``
(4200). It must be started from the repository root. Nothing that it started outlives it, however it ends (flows/guard.py).
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from flows.guard import Guard, end, guarding, recorded
from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.base.processes import alive
from tasks.runs.database import names_a_database
from tasks.stores.postgres import embedded

STARTUP = 120
"""Seconds that a server may take to come up, on a loaded machine."""
POOL = "vecferry"
"""The work pool of every deployment."""
END_WITH_PARENT = "--end-with-parent"
"""Given by make, which says nothing to what it started when it is killed."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Serving:
    """A server and its worker."""

    server: "subprocess.Popen[bytes]"
    worker: "subprocess.Popen[bytes]"
    log: Path
    """What the server says."""


def main() -> None:
    """Starts everything, says where it is, and waits."""
    for stop in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stop) != signal.SIG_IGN:  # nohup is obeyed
            signal.signal(stop, signal.default_int_handler)
    port = int(os.environ.get("PREFECT_SERVER_API_PORT", "4200"))
    parent = os.getppid() if END_WITH_PARENT in sys.argv[1:] else None
    try:
        with alone(port) as lock:
            _check_port(port)
            with serving(port, _say, lock) as parts:
                address = f"http://127.0.0.1:{port}"
                _say(f"\nOpen {address}/deployments and run chroma-to-pgvector/manual. Ctrl-C ends it all.")
                _say(f"In another terminal: export PREFECT_API_URL={address}/api\n")
                _wait(parts, parent)
                _say("\nstopping the worker and its runs, then the server …")
    except KeyboardInterrupt:
        pass
    except UsageError as error:
        sys.exit(str(error))
    _say("stopped; what runs had done is kept, and the same run_id resumes it")


@contextmanager
def alone(port: int) -> Iterator[IO[str]]:
    """Holds the lock of Prefect's folder, so that no two servers use one database. Ends this process, with status 0, when
    another one serves it; waits when one that was killed is being cleaned up after."""
    folder = prefect_home()
    folder.mkdir(parents=True, exist_ok=True)  # Prefect does not make the parents
    with open(folder / "ui.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if other := _serving_already(lock):
                _say(f"already running: open http://127.0.0.1:{other}/deployments")
                sys.exit(0)
            _say("stopping what an earlier one left …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if families := [family for family in recorded(lock) if alive(family.pid)]:
            _say("stopping what an earlier one left when it was killed …")
            end(families)
        lock.truncate(0)
        lock.write(json.dumps({"pid": os.getpid(), "port": port}) + "\n")
        lock.flush()
        yield lock


@contextmanager
def serving(port: int, say: Say = lambda line: None, record: IO[str] | None = None) -> Iterator[Serving]:
    """A server with the deployments, and its worker; both, and the runs they started, are ended afterwards."""
    if not Path("deployments/prefect.yaml").exists():
        sys.exit("deployments/prefect.yaml not found: run this from the repository root")
    home, environment = settings.home(), _environment(port)
    log = prefect_home() / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with guarding(record) as guard, open(log, "wb") as log_file:
        guard.watch_database(home)  # a run may start it for its ledger alone
        if not names_a_database():
            say(f"PostgreSQL     embedded, in {embedded.directory_of(home)}")
            embedded.url(home)  # it stays up between runs, and ends with us even when a run was killed
        say(f"Prefect        server on http://127.0.0.1:{port}, its log is {log}")
        server = _started(
            guard,
            ["server", "start", "--host", "127.0.0.1", "--port", str(port)],
            environment,
            stdout=log_file,
            stderr=log_file,
        )
        _wait_until_healthy(environment["PREFECT_API_URL"], server, log)
        _deploy(environment, say)
        say(f"worker         of the work pool {POOL}; the output of its runs follows here")
        worker = _started(guard, ["worker", "start", "--pool", POOL, "--type", "process"], environment)
        yield Serving(server, worker, log)


def prefect_home() -> Path:
    """Where Prefect keeps its database."""
    home = settings.home()
    default = Path.home() / ".prefect" if "://" in home else Path(home) / "prefect"
    return Path(os.environ.get("PREFECT_HOME", default))


def _environment(port: int) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(prefect_home()),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **os.environ,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }


def _started(
    guard: Guard, arguments: list[str], environment: dict[str, str], **where: Any
) -> "subprocess.Popen[bytes]":
    """A Prefect command in a session of its own: Ctrl-C reaches us alone, and the guard ends it in order."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL, **where)
    guard.watch(process.pid)
    return process


def _deploy(environment: dict[str, str], say: Say) -> None:
    """Deploys, and tells what changed. A deployment that the server refuses to renew is told, and stops nothing."""
    done = subprocess.run([sys.executable, "-m", "flows.deploy"], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    unchanged = sum(line.startswith("unchanged ") for line in lines)
    for line in lines:
        if not line.startswith("unchanged "):
            say(f"deployments    {line}")
    if unchanged:
        say(f"deployments    {unchanged} unchanged")
    if done.returncode and not lines:
        sys.exit(f"nothing was deployed:\n{done.stderr}")
    if done.returncode:
        say(f"deployments    {done.stderr.strip()}")


def _wait(parts: Serving, parent: int | None) -> None:
    """Until Ctrl-C, or the death of ``parent``. Ends this process when one of the parts ends."""
    try:
        while parent in (None, os.getppid()):
            for name, process in (("worker", parts.worker), ("Prefect server", parts.server)):
                if process.poll() is not None:
                    sys.exit(f"the {name} ended with status {process.returncode}; the server's log is {parts.log}")
            time.sleep(0.5)
    except KeyboardInterrupt:
        return


def _wait_until_healthy(api: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + STARTUP
    while time.monotonic() < until and server.poll() is None:
        if _answers(f"{api}/health"):
            return
        time.sleep(0.2)
    sys.exit(f"the Prefect server did not start; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}")


def _serving_already(lock: IO[str]) -> int | None:
    """The port of the one that has the lock; None when only its guard is left."""
    lock.seek(0)
    try:
        holder = json.loads(lock.readline())
    except ValueError:  # it has just begun
        return None
    return int(holder["port"]) if alive(holder["pid"]) else None


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return
    if _answers(f"http://127.0.0.1:{port}/api/work_pools/{POOL}"):
        _say(f"already running: open http://127.0.0.1:{port}/deployments")
        sys.exit(0)
    sys.exit(f"port {port} is taken: choose another, e.g. PREFECT_SERVER_API_PORT={port + 1} make ui")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).is_success
    except httpx.TransportError:
        return False


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
