"""Prefect's SQLite database, with the tables of the version that is installed: to make them takes five seconds, to copy them none."""

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

KEPT = Path(__file__).parents[2] / ".pytest_cache" / "prefect"


def copy(path: Path) -> None:
    """Puts an empty database of Prefect's there, as a server that has been started once leaves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_made(), path)


@cache
def _made() -> Path:
    """Where it is kept. Made by the first process that asks, the others wait for it."""
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{version('prefect')}.db"
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            making = kept.with_suffix(".making")
            making.unlink(missing_ok=True)
            url = f"sqlite+aiosqlite:///{making}"
            environment = os.environ | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            making.rename(kept)
    return kept
