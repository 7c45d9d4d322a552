"""Prefect's ephemeral server outlives a client that is killed. We record its process and end it at the next start: by
the pid we wrote down and the time it was started, never by name."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

FILE = "prefect-server.json"


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
def recorded(home: str) -> Iterator[None]:
    """Writes down the child processes that Prefect starts while the body runs."""
    if os.environ.get("PREFECT_API_URL") or "://" in home:
        yield
        return
    me = psutil.Process()
    path, stop = Path(home) / f"{me.pid}.{FILE}", threading.Event()

    def watch() -> None:
        seen: list[tuple[int, float]] = []
        while not stop.wait(0.2):
            servers = [(c.pid, c.create_time()) for c in _servers(me)]
            if servers != seen:
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


def _servers(me: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in me.children():
        try:
            if "prefect.server" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it ended while we looked
            continue
    return found


def _alive(pid: int, created: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - created) < 1 else None
    except psutil.NoSuchProcess:
        return None
