"""``vecferry serve`` as a process on a terminal: what it says, and how it ends."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.helpers.openai_server import OpenAIServer
from tests.helpers.servers import free_port
from tests.helpers.terminal import terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PAID = "openai/text-embedding-3-small?dimensions=8"


def test_ctrl_c(provider: OpenAIServer, tmp_path: Path) -> None:
    """It answers what is under way, ends with status 0 within seconds, and leaves no process and no database of its own."""
    port, home = free_port(), tmp_path / "home"
    environment = {"VECFERRY_HOME": str(home), "DATABASE_URL": "", "POSTGRES_URL": ""}
    with terminal("serve", "--port", str(port), "--model", PAID, environment=environment) as shown:
        shown.wait_for(f"serving on http://127.0.0.1:{port}; Ctrl-C ends it")
        assert os.getpriority(os.PRIO_PROCESS, shown.process.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        provider.delay = 1.0
        before = len(provider.calls)
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(
                httpx.post, f"http://127.0.0.1:{port}/embeddings/generate", json={"text": "a"}, timeout=30
            )
            time.sleep(0.5)
            shown.type("\x03")
            assert under_way.result().status_code == 200
        assert len(provider.calls) > before
        assert shown.ended(20) == 0
        assert shown.shown.splitlines()[-1] == "vecferry: stopped"
        assert "Traceback" not in shown.shown
        assert shown.left() == []
    assert not (home / "postgres" / "postmaster.pid").exists()


@pytest.mark.whole
def test_terminated(database: str) -> None:
    """SIGTERM ends it as Ctrl-C does."""
    port = free_port()
    with terminal("serve", "--port", str(port)) as shown:
        shown.wait_for("serving on")
        assert httpx.get(f"http://127.0.0.1:{port}/ready", timeout=30).json() == {"status": "ready"}
        shown.process.send_signal(signal.SIGTERM)
        assert shown.ended(20) == 0
        assert "vecferry: stopped" in shown.shown
