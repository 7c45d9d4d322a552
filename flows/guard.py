"""Ends what a process started, however that process ends: killed with -9 too.

The guard is a process of its own. It is told on its standard input which processes there are, a line of JSON each; when
that is closed, by its owner or by the owner's death, it ends them, the latest first, and then the embedded PostgreSQL that
they used, unless somebody else does.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from typing import IO, Any

import psutil

from tasks.base.processes import alive
from tasks.stores.postgres import embedded

GRACE = 20
"""Seconds that runs may take to tell the server and the ledger that they end."""
LAST = 3
"""Seconds more for the worker, which may hang then, and for the server, which waits for pages that people have open; its
database takes no harm."""


@dataclass(frozen=True)
class Family:
    """A process, by its number and the time of its start, and all below it."""

    pid: int
    created: float


class Guard:
    """The guard of this process."""

    def __init__(self, process: "subprocess.Popen[str]", record: IO[str] | None) -> None:
        self._process, self._record = process, record
        self.families: list[Family] = []
        """What it ends, in the order of their start."""

    def watch(self, pid: int) -> None:
        """Has a process ended with its family when this one ends."""
        self.families.append(Family(pid, psutil.Process(pid).create_time()))
        self._tell({"process": astuple(self.families[-1])})

    def watch_database(self, home: str) -> None:
        """Has the embedded PostgreSQL of that home ended, unless another process uses it then."""
        self._tell({"home": home})

    def _tell(self, what: dict[str, Any]) -> None:
        line = json.dumps(what) + "\n"
        for file in (self._record, self._process.stdin):
            if file is not None:
                file.write(line)
                file.flush()


@contextmanager
def guarding(record: IO[str] | None = None) -> Iterator[Guard]:
    """A guard for what the body starts; all of it has ended afterwards. What is watched is written to ``record`` too, which
    the guard keeps open, and with it its lock, until it is done."""
    keep = [] if record is None else [record.fileno()]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.guard"], stdin=subprocess.PIPE, text=True, start_new_session=True, pass_fds=keep
    )
    guard = Guard(process, record)
    try:
        yield guard
    finally:
        with suppress(BrokenPipeError):
            process.communicate()
        if process.returncode:  # it was killed itself
            end(guard.families[::-1])


def recorded(record: Iterable[str]) -> list[Family]:
    """The families of a record, the latest first."""
    return [Family(*what["process"]) for what in _told(record) if "process" in what][::-1]


def _told(record: Iterable[str]) -> list[dict[str, Any]]:
    """Its owner may have been killed in the middle of the last line."""
    return [json.loads(line) for line in record if line.endswith("\n")]


def end(families: list[Family]) -> None:
    """Ends them, one after the other: asked first, then killed."""
    for family in families:
        members = _members(family)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _wait(members[1:], GRACE)
        _wait(members[:1], LAST)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def _wait(processes: list[psutil.Process], seconds: float) -> None:
    """psutil's own wait takes one whose parent has not noticed its end yet for alive."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(alive(process.pid) for process in processes):
        time.sleep(0.1)


def _members(family: Family) -> list[psutil.Process]:
    try:
        process = psutil.Process(family.pid)
        if process.create_time() != family.created:
            return []
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    """Waits for the end of standard input, then ends what was named there."""
    lines = list(sys.stdin)
    end(recorded(lines))
    for home in [what["home"] for what in _told(lines) if "home" in what]:
        embedded.release(home)


if __name__ == "__main__":
    main()
