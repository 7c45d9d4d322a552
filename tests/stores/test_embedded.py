"""The embedded PostgreSQL does not outlive who used it last."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

ENDS_BEFORE_PG_CTL = """
import os, sys
from tasks.stores.postgres import embedded
embedded.url(sys.argv[1])
(server,) = embedded._servers.values()
print(server._postmaster_info.pid, flush=True)
server.cleanup = lambda: os._exit(1)
embedded.close()
"""


def test_a_process_that_has_no_time_left_stops_it_all_the_same(tmp_path: Path) -> None:
    """Interrupted on a busy machine, a command ends before pg_ctl has begun to stop the server."""
    command = [sys.executable, "-c", ENDS_BEFORE_PG_CTL, str(tmp_path / "home")]
    pid = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout)
    try:
        for _ in range(50):
            if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.2)
        raise AssertionError("the server goes on")
    finally:
        if psutil.pid_exists(pid):
            psutil.Process(pid).terminate()
