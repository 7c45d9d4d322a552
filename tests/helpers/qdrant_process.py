"""The process that serves: a template that has imported everything, and forks a server for each line that it reads.

A server starts in some milliseconds and can be killed like any other program. All end with the process that started the
template: it reads the end of its input then.
"""

import asyncio
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

MEMORY = Path("/dev/shm")


def main() -> None:
    """Reads lines of JSON: folder, version, api_key, read_only_key, port. Writes process id and port of each server."""
    only_models()
    importlib.import_module("tests.helpers.qdrant_http")  # before the forks, which then have it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what ends is forgotten at once
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the tests; the end of the input comes after it
    children, folders = [], []
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if not child:
            try:
                end_with_parent()
                serve(wanted)
            finally:
                os._exit(0)  # the template's own loop is not the child's
        children.append(child)
        folders.append(Path(wanted["folder"]))
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    for folder in folders:
        if folder.parent == MEMORY:
            shutil.rmtree(folder, ignore_errors=True)


def end_with_parent() -> None:
    """Has the kernel kill this process when its parent is gone, where the kernel is Linux: the template may be killed too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def only_models() -> None:
    """Has qdrant_client's models imported without the client: all of it takes half a second more."""
    spec = importlib.util.find_spec("qdrant_client")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("qdrant_client")
    folder = Path(spec.submodule_search_locations[0])
    for name, place in (("qdrant_client", folder), ("qdrant_client.http", folder / "http")):
        package = ModuleType(name)
        package.__path__ = [str(place)]
        sys.modules[name] = package


def serve(wanted: dict[str, Any]) -> None:
    """Serves until SIGTERM. Writes one line: where it listens, or why it does not."""
    from tests.helpers.qdrant_state import Served
    from tests.helpers.qdrant_storage import Storage

    try:
        storage = Storage(Path(wanted["folder"]))
    except Exception as error:  # noqa: BLE001  whoever waits for the line is told
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    asyncio.run(until_told(Served(storage, wanted["version"]), wanted))
    storage.close()


async def until_told(served: Any, wanted: dict[str, Any]) -> None:
    from tests.helpers.qdrant_http import Keys, listen

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    try:
        server = await listen(served, Keys(wanted["api_key"], wanted["read_only_key"]), wanted["port"])
    except OSError as error:
        print(json.dumps({"error": f"port {wanted['port']}: {error}"}), flush=True)
        return
    print(json.dumps({"pid": os.getpid(), "port": server.sockets[0].getsockname()[1]}), flush=True)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    main()
