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
from typing import IO, Any

import psutil

from tasks.processes import alive
from tasks.stores import embedded

GRACE = 20
"""Seconds that a process, and the runs below it, may take to tell the server and the ledger that they end."""


Family = tuple[int, float]
"""A process by its number and the time of its start, and all below it."""


class Guard:
    """The guard of this process."""

    def __init__(self, process: "subprocess.Popen[str]", record: IO[str] | None) -> None:
        self._process, self._record = process, record
        self.families: list[Family] = []
        """What it ends, in the order of their start."""

    def watch(self, pid: int) -> None:
        """Has a process ended with its family when this one ends."""
        self.families.append((pid, psutil.Process(pid).create_time()))
        self._tell({"process": self.families[-1]})

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
    told = [what["process"] for what in _told(record) if "process" in what]
    return [(pid, created) for pid, created in reversed(told)]


def _told(record: Iterable[str]) -> list[dict[str, Any]]:
    """Its owner may have been killed in the middle of the last line."""
    return [json.loads(line) for line in record if line.endswith("\n")]


def end(families: list[Family]) -> None:
    """Ends processes, given with the time of their start, and all below them, one family after the other: asked first,
    then killed."""
    for pid, created in families:
        members = _family(pid, created)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        until = time.monotonic() + GRACE
        while time.monotonic() < until and any(alive(member.pid) for member in members):
            time.sleep(0.1)  # psutil's own wait takes one whose parent has not noticed yet for alive
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def _family(pid: int, created: float) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        if process.create_time() != created:
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
