"""``vecferry serve`` as a process on a terminal: what it says, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client

from tasks.stores.postgres.connection import Connection
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.servers import free_port
from tests.helpers.several_models import several
from tests.helpers.terminal import terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
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


@pytest.mark.whole
def test_work_that_takes_long(prefect_url: str, connection: Connection) -> None:
    """It is a flow run on the Prefect server: its id, name and address come at once, and its parameters are what was asked for.
    Without the deployment it is refused, with the command that makes it."""
    several(connection, ("hashing/4", "hashing/8"), 3)
    key = connection.execute("SELECT id FROM documents LIMIT 1").fetchone()
    assert key
    connection.execute(
        "INSERT INTO document_chunks (document_id, chunk_index, content) SELECT %s, 100 + n, 'chunk ' || n "
        "FROM generate_series(1, 600) n",
        key,
    )
    port = free_port()
    address = f"http://127.0.0.1:{port}/api/v1"
    with (
        terminal("serve", "--port", str(port), environment={"PREFECT_API_URL": prefect_url}) as shown,
        get_client(sync_client=True) as client,
    ):
        shown.wait_for("serving on")
        asked = {"target_model": "8", "source_model": "hashing/4"}
        refused = httpx.post(f"{address}/migrations", json=asked, timeout=60)
        assert refused.status_code == 409
        assert "has no deployment multi-model/manual: make it with `python -m flows.deploy`" in refused.text
        client.create_deployment(flow_id=client.create_flow_from_name("multi-model"), name="manual")
        whole = httpx.post(f"{address}/migrations", json=asked, timeout=60)
        long = httpx.put(f"{address}/documents/{key[0]}/embeddings", params={"model": "8"}, timeout=60)
        for answer, parameters in (
            (whole, {"target_model": "hashing/8", "source_model": "hashing/4"}),
            (long, {"target_model": "hashing/8", "documents": {"ids": [str(key[0])]}}),
        ):
            assert answer.status_code == 202, answer.text
            started = answer.json()["flow_run"]
            run = client.read_flow_run(started["id"])
            assert (run.name, run.parameters) == (started["name"], {**parameters, "database": "DATABASE_URL"})
            assert started["id"] in started["url"]


def test_other_commands_start_as_fast_as_before() -> None:
    """What serves HTTP is imported by `vecferry serve` alone."""
    code = "import sys, flows.command.main; print([name for name in ('fastapi', 'uvicorn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
