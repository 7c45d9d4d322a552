"""`make ui` as a process: what it says, and what it leaves behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tasks.base.processes import alive
from tests.helpers.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SERVE = [sys.executable, "-m", "flows.ui"]
SCHEDULED = "chroma-to-pgvector/scheduled"


@dataclass(frozen=True)
class Ui:
    """A folder and a port, where it is started again and again."""

    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        unset = ("DATABASE_URL", "POSTGRES_URL", "PREFECT_HOME", "PREFECT_API_URL", "PREFECT_LOGGING_LEVEL")
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        return {**kept, "VECFERRY_HOME": str(self.home), "PREFECT_SERVER_API_PORT": str(self.port)}

    @property
    def output(self) -> Path:
        return self.home.parent / "output"

    @contextmanager
    def started(self, command: list[str], until: str) -> Iterator[subprocess.Popen[bytes]]:
        """The command, once it has said ``until``; it is killed, when it did not end before."""
        with open(self.output, "wb") as text:
            process = subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdout=text, stderr=text, start_new_session=True
            )
        try:
            wait_for(lambda: until in self.output.read_text() or process.poll() is not None, 120)
            assert process.poll() is None, self.output.read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def schedule(self) -> tuple[bool, str, dict[str, object]]:
        result = httpx.get(f"http://127.0.0.1:{self.port}/api/deployments/name/{SCHEDULED}", timeout=60).json()
        (schedule,) = result["schedules"]
        return schedule["active"], schedule["schedule"]["cron"], result["parameters"]

    def set_schedule(self) -> None:
        api = f"http://127.0.0.1:{self.port}/api/deployments"
        result = httpx.get(f"{api}/name/{SCHEDULED}", timeout=60).json()["id"]
        schedule = {"slug": "nightly", "active": True, "schedule": {"cron": "5 4 * * *"}}
        edited = {"parameters": {"chroma": {"path": "/data"}}, "schedules": [schedule]}
        wait_for(lambda: httpx.patch(f"{api}/{result}", json=edited, timeout=60).is_success)  # a busy server says 503

    def postgres(self) -> int:
        return int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def family(process: subprocess.Popen[bytes]) -> list[int]:
    return [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]


def guard_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    children = psutil.Process(process.pid).children(recursive=True)
    (guard,) = [child for child in children if "flows.guard" in child.cmdline()]
    return guard


@pytest.fixture
def ui(tmp_path: Path) -> Ui:
    return Ui(tmp_path / "home", free_port())


@pytest.mark.whole
def test_nothing_is_left_however_it_ends(ui: Ui) -> None:
    """It says its steps and none of Prefect's banner; a second start finds the first; killed with -9 it leaves no server, worker
    or database, save one that another command uses. The next start keeps what was set in the UI; interrupted, it leaves
    nothing."""
    with ui.started(SERVE, "\nOpen http") as process:
        text = ui.output.read_text()
        steps = ("PostgreSQL ", "Prefect ", "deployments ", "worker ")
        assert [step for step in steps if f"\n{step}" not in f"\n{text}"] == []
        assert "prefect config set" not in text
        second = subprocess.run(SERVE, env=ui.environment, cwd=ROOT, capture_output=True, text=True, timeout=180)
        assert second.stdout == f"already running: open http://127.0.0.1:{ui.port}/deployments\n"
        assert (second.returncode, second.stderr) == (0, "")
        ui.set_schedule()
        everybody, postgres = family(process), ui.postgres()
        assert len(everybody) >= 4, "a server, a worker and a guard"
        user = subprocess.Popen(
            [sys.executable, "-c", "from tasks.stores.postgres import embedded; embedded.url(input()); print(1, flush=True); input()"],
            env=ui.environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert user.stdin
        assert user.stdout
        user.stdin.write(f"{ui.home}\n")
        user.stdin.flush()
        assert user.stdout.readline() == "1\n"
        process.kill()
    wait_for(lambda: not any(map(alive, everybody)))
    assert alive(postgres), "another command uses it"
    user.communicate("\n")
    wait_for(lambda: not alive(postgres))

    with ui.started(SERVE, "\nOpen http") as process:
        assert ui.schedule() == (True, "5 4 * * *", {"chroma": {"path": "/data"}})
        deployed = [line for line in ui.output.read_text().splitlines() if line.startswith("deployments ")]
        assert len(deployed) == 1
        assert re.fullmatch(r"deployments +\d+ unchanged", deployed[0])
        everybody, postgres = family(process), ui.postgres()
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
    wait_for(lambda: not any(map(alive, [*everybody, postgres])))
    assert "Traceback" not in ui.output.read_text()


@pytest.mark.whole
def test_nothing_is_left_of_make_and_of_a_guard_that_is_killed(ui: Ui) -> None:
    """Killed with make, or with its guard, or interrupted while it starts, it leaves nothing; what its guard could not end is
    ended by the next start."""
    under_make = ["sh", "-c", f"{' '.join(SERVE)} --end-with-parent; true"]
    with ui.started(under_make, "\nOpen http") as make:
        everybody, postgres = family(make), ui.postgres()
        guard_of(make).kill()
        make.kill()
    wait_for(lambda: not any(map(alive, [*everybody, postgres])))

    with ui.started(SERVE, "\nPrefect ") as process:
        wait_for(lambda: len(family(process)) > 2)
        left = [pid for pid in family(process) if pid not in (process.pid, guard_of(process).pid)]
        guard_of(process).kill()
        process.kill()
    assert any(map(alive, left)), "nobody was there to end it"

    with ui.started(SERVE, "\nPrefect ") as process:
        assert "stopping what an earlier one left when it was killed" in ui.output.read_text()
        assert not any(map(alive, left))
        everybody, postgres = family(process), ui.postgres()
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
    wait_for(lambda: not any(map(alive, [*everybody, postgres])))
    assert "Traceback" not in ui.output.read_text()


def test_a_port_of_somebody_else_is_named(ui: Ui) -> None:
    """Where something else listens, nothing is started, and the message names another port."""
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(ui.port), "--bind", "127.0.0.1"], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _listens(ui.port))
        done = subprocess.run(SERVE, env=ui.environment, cwd=ROOT, capture_output=True, text=True, timeout=180)
    finally:
        other.kill()
        other.wait()
    assert done.returncode == 1
    assert f"port {ui.port} is taken: choose another" in done.stderr
    assert not (ui.home / "postgres").exists()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
