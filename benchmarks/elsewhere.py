"""Processes that run as if on machines of their own: they get what the database and its readers leave of the processors, and
give it back at once.

``nice`` does not do that: Linux weighs it within a session or a control group only, and PostgreSQL is in another.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Enter = Callable[[], object]
"""What a new process calls before its program begins: subprocess's ``preexec_fn``."""

_ROOTS = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
"""Where control groups of processors are: cgroup v1, and v2."""


@contextmanager
def elsewhere() -> Iterator[Enter]:
    """A control group that is idle wherever somebody else wants to run (cpu.idle, Linux 5.15); the lowest priority, with a
    word about it, where none can be made."""
    group = _made()
    if group is None:
        print("no idle control group can be made here: the command and the provider run with nice 19", file=sys.stderr)
        yield lambda: os.nice(19)
        return
    try:
        yield lambda: _enter(group)
    finally:
        group.rmdir()


def _made() -> Path | None:
    for root in _ROOTS:
        group = root / f"vecferry-bench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / "cpu.idle").write_text("1")
        except OSError:
            group.rmdir()
        else:
            return group
    return None


def _enter(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))
