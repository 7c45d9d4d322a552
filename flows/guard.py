"""Ends what a process started, however that process ends: killed with -9 too.

The guard is a process of its own. It is told on its standard input which processes there are, a line of JSON each; when
that is closed, by its owner or by the owner's death, it ends them, the latest first, and then the embedded PostgreSQL that
they used, unless somebody else does.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from tasks.processes import alive
from tasks.stores import embedded

GRACE = 20
"""Seconds that a process, and the runs below it, may take to tell the server and the ledger that they end."""


class Guard:
    """The guard of this process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def watch(self, pid: int) -> None:
        """Has a process ended with its family when this one ends."""
        self._tell({"process": [pid, psutil.Process(pid).create_time()]})

    def watch_database(self, home: str) -> None:
        """Has the embedded PostgreSQL of that home ended, unless another process uses it then."""
        self._tell({"home": home})

    def _tell(self, what: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()


@contextmanager
def guarding(keep: Sequence[int] = ()) -> Iterator[Guard]:
    """A guard for what the body starts; all of it has ended afterwards. The guard holds the file descriptors of ``keep``
    open, and with them their locks, until it is done."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.guard"], stdin=subprocess.PIPE, text=True, start_new_session=True, pass_fds=keep
    )
    try:
        yield Guard(process)
    finally:
        with suppress(BrokenPipeError):
            process.communicate()


def end(families: list[tuple[int, float]]) -> None:
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
    told = [json.loads(line) for line in sys.stdin]
    end([(pid, created) for pid, created in reversed([t["process"] for t in told if "process" in t])])
    for home in [t["home"] for t in told if "home" in t]:
        embedded.release(home)


if __name__ == "__main__":
    main()
