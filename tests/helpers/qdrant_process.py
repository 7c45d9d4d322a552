"""The process that serves: a template that has imported everything, and forks a server for each line that it reads.

A server starts in some milliseconds and can be killed like any other program. All end with the process that started the
template: it reads the end of its input then.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.helpers.qdrant_http import Keys, listen
from tests.helpers.qdrant_state import Served
from tests.helpers.qdrant_storage import Storage


def main() -> None:
    """Reads lines of JSON: folder, version, api_key, read_only_key, port. Writes process id and port of each server."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what ends is forgotten at once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children = []
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                serve(json.loads(line))
            finally:
                os._exit(0)  # the template's own loop is not the child's
        children.append(child)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def serve(wanted: dict[str, Any]) -> None:
    """Serves until SIGTERM. Writes one line: where it listens, or why it does not."""
    try:
        storage = Storage(Path(wanted["folder"]))
    except Exception as error:  # noqa: BLE001  whoever waits for the line is told
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    keys = Keys(wanted["api_key"], wanted["read_only_key"])
    asyncio.run(until_told(Served(storage, wanted["version"]), keys, wanted["port"]))
    storage.close()


async def until_told(served: Served, keys: Keys, port: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    try:
        server = await listen(served, keys, port)
    except OSError as error:
        print(json.dumps({"error": f"port {port}: {error}"}), flush=True)
        return
    print(json.dumps({"pid": os.getpid(), "port": server.sockets[0].getsockname()[1]}), flush=True)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    main()
