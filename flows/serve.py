"""`make ui`: a Prefect server on this machine, the deployments, and a worker that runs them, until Ctrl-C.

It keeps its database in VECFERRY_HOME (``PREFECT_HOME`` overrides that) and listens on ``PREFECT_SERVER_API_PORT``
(4200). It must be started from the repository root.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import yaml

from tasks import settings
from tasks.stores import embedded

POOL = "vecferry"
STARTUP = 120
"""Seconds that a server may take to come up, on a loaded machine."""
DEPLOYMENTS = "deployments/prefect.yaml"
AUTOMATION = "deployments/automations/crash-zombie-runs.yaml"


def main() -> None:
    """Starts everything, says where it is, and waits."""
    for stop in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stop) != signal.SIG_IGN:  # nohup is obeyed
            signal.signal(stop, signal.default_int_handler)
    port = int(os.environ.get("PREFECT_SERVER_API_PORT", "4200"))
    if not Path(DEPLOYMENTS).exists():
        sys.exit(f"there is no {DEPLOYMENTS} here: start this from the repository root")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(f"port {port} is taken: choose another, e.g. PREFECT_SERVER_API_PORT={port + 1} make ui")
    try:
        with serving(port) as worker:
            address = f"http://127.0.0.1:{port}"
            print(f"\nOpen {address}/deployments and run chroma-to-pgvector/manual. Ctrl-C ends it all.", flush=True)
            print(f"In another terminal: export PREFECT_API_URL={address}/api\n", flush=True)
            sys.exit(f"the worker ended with status {worker.wait()}")
    except KeyboardInterrupt:
        print("\nended; what runs had done is kept, and the same run_id resumes it")


@contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server with the deployments, and its worker; both, and the runs they started, are ended afterwards."""
    home = settings.home()
    environment = {
        "PREFECT_HOME": str(Path.home() / ".prefect") if "://" in home else os.path.join(home, "prefect"),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **os.environ,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    if not settings.names_a_database():
        embedded.url(home)  # held by us, it stays up between runs, and ends with us even when a run was killed
    Path(environment["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect does not make the parents
    with running(["server", "start", "--host", "127.0.0.1", "--port", str(port)], environment) as server:
        with httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=60) as api:
            _wait_until_healthy(api, server)
            _make_pool(api)
            _make_automation(api)
        _prefect(["deploy", "--prefect-file", DEPLOYMENTS, "--all"], environment)
        with running(["worker", "start", "--pool", POOL, "--type", "process"], environment) as worker:
            yield worker


@contextmanager
def running(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect command in the background, in a session of its own: Ctrl-C reaches us alone, and we end it in order."""
    process = subprocess.Popen(_command(arguments), env=environment, start_new_session=True)
    try:
        yield process
    finally:
        family = _family(process.pid)
        for member in family:  # a run, too, is asked to end, so that it tells the server and the ledger
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for left in alive:
            left.kill()
        process.wait()


def _prefect(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(_command(arguments), env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", *arguments]


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _wait_until_healthy(api: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTUP
    while time.monotonic() < until and server.poll() is None:
        try:
            if api.get("/health").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit("the Prefect server did not come up; see above")


def _make_pool(api: httpx.Client) -> None:
    answer = api.post("/work_pools/", json={"name": POOL, "type": "process"})
    if answer.status_code != httpx.codes.CONFLICT:  # it is there
        answer.raise_for_status()


def _make_automation(api: httpx.Client) -> None:
    automation = yaml.safe_load(Path(AUTOMATION).read_text())
    named = {"automations": {"name": {"any_": [automation["name"]]}}}
    if not api.post("/automations/filter", json=named).raise_for_status().json():
        api.post("/automations/", json=automation).raise_for_status()


if __name__ == "__main__":
    main()
