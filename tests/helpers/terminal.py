"""A real terminal for the tests: the command is the foreground of a session of its own, so that Ctrl-C reaches all of it."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

COMMAND = str(Path(sys.executable).parent / "vecferry")
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass
class Terminal:
    """A command on a terminal of 120 columns."""

    process: "subprocess.Popen[bytes]"
    screen: int
    """Where a person types and reads."""
    _read: bytearray = field(default_factory=bytearray)

    @property
    def shown(self) -> str:
        """Everything that was written to the terminal."""
        return bytes(self._read).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def wait_for(self, text: str, seconds: float = 100) -> None:
        """Returns once ``text`` is shown. Raises TimeoutError, with all that is shown, when it is not."""
        until = time.monotonic() + seconds
        while text not in self.shown:
            if time.monotonic() > until or (self.process.poll() is not None and text not in self.shown):
                raise TimeoutError(f"{text!r} is not shown: {self.shown}")
            time.sleep(0.02)

    def ended(self, seconds: float = 100) -> int:
        """The exit status, once the command has ended and all it wrote is read."""
        status = self.process.wait(seconds)
        self._reader.join(0.5)  # a process that is left keeps the terminal open
        return status

    def left(self) -> list[str]:
        """The command lines of processes in the terminal's session."""
        result = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    result.append(" ".join(process.cmdline()))
            except (psutil.Error, ProcessLookupError):
                continue
        return result

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._keep_reading, daemon=True)
        self._reader.start()

    def _keep_reading(self) -> None:
        while True:
            try:
                read = os.read(self.screen, 65536)
            except OSError:  # nobody has the terminal open any more
                return
            if not read:
                return
            self._read += read


@contextmanager
def terminal(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[Terminal]:
    """vecferry, called on a terminal; killed, with all that it started in its session, when the body ends."""
    screen, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x28\x00\x78\x00\x00\x00\x00\x00")
    inherited = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, sys.executable, COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=inherited | {"TERM": "xterm"} | (environment or {}),
        start_new_session=True,
    )
    os.close(theirs)
    shown = Terminal(process, screen)
    try:
        yield shown
    finally:
        for left in psutil.process_iter():
            try:
                if os.getsid(left.pid) == process.pid:
                    left.kill()
            except (psutil.Error, ProcessLookupError):
                continue
        process.wait()
        os.close(screen)
