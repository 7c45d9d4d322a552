"""What the command asks a person on a real terminal."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import ledger
from tasks.stores.connection import Connection

pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "state"), [("y", "cut_over"), ("n", "verified")])
def test_ask_shows_the_verification_and_then_asks(
    connection: Connection, chroma_dir: Callable[..., str], answer: str, state: str
) -> None:
    """`cutover=ask` without a Prefect server asks on the terminal, below the table of checks."""
    command = [str(Path(sys.executable).parent / "vecferry"), "run", "chroma-to-pgvector", "--run-id", "asked"]
    options = ["-p", f"chroma.path={chroma_dir(count=40)}", "-p", "cutover=ask", "-p", "gates.max_quarantined=7"]
    status, shown = _typed([*command, *options], b"Switch now?", f"{answer}\n".encode())
    assert status == 0, shown
    assert shown.index("query parity") < shown.index("Switch now?")
    assert ledger.get(connection, "asked").state == state
    tables = shown.split("Switch now?")
    assert "≤ 7" in tables[0]
    assert ("≤ 7" in tables[1]) == (answer == "y"), "the switch was verified by other gates"


def _typed(command: list[str], prompt: bytes, answer: bytes) -> tuple[int, str]:
    """Runs a command on a terminal and answers once ``prompt`` is shown; its exit status and all that it wrote."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120"}
    environment.pop("PREFECT_API_URL", None)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    shown, until, answered = b"", time.monotonic() + 200, False
    while time.monotonic() < until:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the terminal is closed once the command has ended
            break
        if not read:
            break
        shown += read
        if prompt in shown and not answered:
            os.write(ours, answer)
            answered = True
    os.close(ours)
    return process.wait(20), shown.decode(errors="replace")
