"""The Qdrant server that tests run against: their own, or a real one."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from tests.helpers.memory import memory_folder
from tests.helpers.qdrant_server import QdrantServer, qdrant_server

URL = "VECFERRY_TEST_QDRANT_URL"
KEY = "VECFERRY_TEST_QDRANT_API_KEY"
ASKED: set[str] = set()
"""Which servers tests of this process have asked."""


@dataclass(frozen=True)
class Qdrant:
    """An empty server."""

    url: str
    api_key: str | None
    own: QdrantServer | None
    """The tests' own server, which can be made to fail; None for a real one."""

    def client(self) -> QdrantClient:
        return QdrantClient(self.url, api_key=self.api_key, timeout=60)

    @property
    def server(self) -> QdrantServer:
        """The tests' own server. Skips the test where a real one is used, which cannot be made to fail."""
        if self.own is None:
            pytest.skip(f"needs a server that fails on demand; {URL} names a real one")
        return self.own


def which() -> str:
    """Which server that is, for a line in pytest's output."""
    if real := os.environ.get(URL):
        return f"the real server at {real}"
    return f"the tests' own server over qdrant-edge-py {version('qdrant-edge-py')}; {URL} names a real one instead"


@contextmanager
def qdrant_for_tests(folder: Path) -> Iterator[Qdrant]:
    """The server that VECFERRY_TEST_QDRANT_URL names, for one test at a time, which has to have no collections and is left
    without any; else one over the folder. Raises RuntimeError for one that has some: they are somebody's."""
    ASKED.add(which())
    real = os.environ.get(URL)
    if not real:
        with memory_folder(folder) as kept, qdrant_server(kept) as server:
            yield Qdrant(server.url, None, server)
        return
    qdrant = Qdrant(real, os.environ.get(KEY), None)
    with (Path(tempfile.gettempdir()) / "vecferry-test-qdrant.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = qdrant.client()
        if there := client.get_collections().collections:
            raise RuntimeError(f"{real} has collections already, as {there[0].name}; {URL} has to name an empty server")
        try:
            yield qdrant
        finally:
            for collection in client.get_collections().collections:
                client.delete_collection(collection.name)
            client.close()


@pytest.fixture
def client(qdrant: Qdrant) -> Iterator[QdrantClient]:
    """A client of the server, for a test module that imports it."""
    opened = qdrant.client()
    yield opened
    opened.close()
