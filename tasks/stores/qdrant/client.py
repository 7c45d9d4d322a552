"""Clients of a Qdrant server, or of a directory of qdrant-client's local mode: how they are opened, and what they can do."""

import atexit
import functools
import os
import re
import threading
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import portalocker
from qdrant_client import QdrantClient

from tasks.base import settings
from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.stores.qdrant.errors import refused
from tasks.stores.qdrant.rest import Rest, connect

URL, KEY = "QDRANT_URL", "QDRANT_API_KEY"
"""What the URL and the key are called where nobody calls them otherwise; there need be no key then."""
PORT = 6333
META = "meta.json"
"""The file that makes a directory one of local mode."""
LOCK = ".lock"
SECONDS = 300
"""The longest that a call may take."""
OLDEST = (1, 10)
"""The server that ``query_points`` came with."""

_OPENING = threading.Lock()
_directories: dict[str, "Qdrant"] = {}
"""What this process has opened: local mode lets one client in at a time, in one process too."""
_servers: dict[tuple[str, str | None], tuple[QdrantClient, Rest]] = {}
"""Clients by URL and key. A server that was reached once is expected to be there: failing to reach it may pass."""


@dataclass(frozen=True)
class Server:
    """What keeps the collections, and what it can do. The fields after ``local`` are facts of versions, and what local mode of
    qdrant-client does otherwise than a server."""

    version: str
    local: bool
    adds_vector_names: bool
    """Whether a collection can get another named vector (Qdrant 1.18)."""
    adds_beside_unnamed: bool
    """Whether one whose vector has no name can: local mode refuses every ordinary upsert of a point then."""
    conditional_updates: bool
    """Whether a write can say which points it is for: ``update_mode`` and ``update_filter`` (Qdrant 1.17)."""
    indexes: bool
    """Whether there is an index to wait for, and to be held back. Local mode compares every vector, and keeps no settings of hnsw,
    quantization, optimizers and payload indexes."""


@dataclass(frozen=True)
class Qdrant:
    """A server or a directory, opened."""

    client: QdrantClient
    """The client library: its calls stand within ``refused()``."""
    place: str
    """The URL or the directory, for messages."""
    server: Server
    rest: Rest | None = None
    """The shorter way to a server's points; None in local mode."""

    def refused(self) -> AbstractContextManager[None]:
        """While the body runs, what Qdrant refuses is raised as one of our classes."""
        return refused(self.place)

    def collections(self) -> list[str]:
        """The name of every collection; aliases are not among them."""
        with self.refused():
            return sorted(c.name for c in self.client.get_collections().collections)

    def aliases(self) -> dict[str, str]:
        """Alias → collection."""
        with self.refused():
            return {a.alias_name: a.collection_name for a in self.client.get_aliases().aliases}


def opened(*, url: str | None = None, path: str | None = None, api_key: str | None = None) -> Qdrant:
    """Opens a server or a directory. ``url`` is a URL, or the name of a variable or secret that holds it; ``api_key`` is always a
    name. Raises UsageError where there is none, or it is of no use, TransientError where a server could be reached a moment
    ago."""
    if (url is None) == (path is None):
        raise UsageError(
            "name one of qdrant.url and qdrant.path: a server, or a directory of qdrant-client's local mode"
        )
    if path is not None:
        return _directory(os.path.abspath(path))
    return _server(_whole(_named(url or URL)), _key(api_key))


def created(path: str) -> Qdrant:
    """A new directory of local mode. Raises UsageError where there is one already."""
    place = os.path.abspath(path)
    if os.path.exists(os.path.join(place, META)):
        raise UsageError(f"{path} already holds collections of Qdrant's local mode: name a new directory")
    os.makedirs(place, exist_ok=True)
    with _OPENING:
        return _local(place)


def close_directory(path: str) -> None:
    """Lets others open a directory that this process has opened; what was opened of it before is of no use after."""
    with _OPENING:
        if closing := _directories.pop(os.path.abspath(path), None):
            closing.client.close()


def facts(number: str, local: bool = False) -> Server:
    """What Qdrant, or qdrant-client in local mode, of this version can do."""
    release = _release(number)
    return Server(
        version=number,
        local=local,
        adds_vector_names=release >= (1, 18),
        adds_beside_unnamed=release >= (1, 18) and not local,
        conditional_updates=release >= (1, 17),
        indexes=not local,
    )


def _release(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", number)[:2])


def _server(url: str, key: str | None) -> Qdrant:
    with _OPENING:
        reached = (url, key) in _servers
        if not reached:
            _servers[url, key] = _client(url, key), connect(url, key, SECONDS)
        client, rest = _servers[url, key]
    try:
        number = rest.get("").get("version")
    except TransientError as error:
        if reached or not isinstance(error.__cause__, httpx.TransportError):
            raise
        with _OPENING:
            _servers.pop((url, key), None)
        raise UsageError(
            f"cannot reach Qdrant at {url}: {error.__cause__}; is it up, and is qdrant.url right?"
        ) from error
    except FatalError as error:
        raise UsageError(str(error)) from error
    if not isinstance(number, str) or not _release(number):
        raise UsageError(f"what answers at {url} is not a Qdrant server: check qdrant.url")
    if _release(number) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(
            f"Qdrant at {url} is version {number}, and vecferry needs {oldest} or later: upgrade the server"
        )
    return Qdrant(client, url, facts(number), rest)


def _client(url: str, key: str | None) -> QdrantClient:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a key that travels in plain text, as the URL shows
        return QdrantClient(url=url, api_key=key, timeout=SECONDS, check_compatibility=False)


def _directory(place: str) -> Qdrant:
    with _OPENING:
        if place in _directories:
            return _directories[place]
        if not os.path.exists(os.path.join(place, META)):
            what = f"holds no collections of Qdrant's local mode ({META})" if os.path.isdir(place) else "does not exist"
            raise UsageError(f"qdrant.path: {place} {what}; nothing was created there")
        return _local(place)


def _local(place: str) -> Qdrant:
    """Opens the directory, which is this process's own from here on. The lock is tried first: the client reads every point
    before it looks at it."""
    try:
        if os.path.exists(lock := os.path.join(place, LOCK)):
            with open(lock, "r+") as handle:
                portalocker.lock(handle, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
                portalocker.unlock(handle)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = QdrantClient(path=place, force_disable_check_same_thread=True)
    except (portalocker.exceptions.LockException, RuntimeError) as error:
        raise UsageError(
            f"qdrant.path: {place} is open in another process, and Qdrant's local mode lets in one at a time: "
            "stop that process, or run a Qdrant server and name it as qdrant.url"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"qdrant.path: {place} cannot be opened: {' '.join(str(error).split())}") from error
    atexit.register(close_directory, place)
    one = Qdrant(_one_at_a_time(client), place, facts(version("qdrant-client"), local=True))
    _directories[place] = one
    return one


class _OneAtATime:
    """A client whose calls wait for each other: local mode keeps plain arrays, which a write replaces while others read."""

    def __init__(self, client: QdrantClient) -> None:
        self._client, self._lock = client, threading.RLock()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute

        @functools.wraps(attribute)
        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                return attribute(*arguments, **named)

        return call


def _one_at_a_time(client: QdrantClient) -> QdrantClient:
    return cast(QdrantClient, _OneAtATime(client))


def _whole(url: str) -> str:
    """The URL with its port, which is Qdrant's own where it names none. Raises UsageError for what is no URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"qdrant.url: {url} is not a URL: write http://HOST:{PORT}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or PORT}{parts.path.rstrip('/')}"


def _named(url: str) -> str:
    """The URL itself, or what the variable or secret of that name holds."""
    if "://" in url or ":" in url:
        return url
    if value := settings.secret(url, "qdrant.url"):
        return value
    if url == URL:
        raise UsageError(f"no Qdrant is named: give qdrant.url or qdrant.path, or set {URL}")
    raise UsageError(f"qdrant.url: neither an environment variable nor a Prefect Secret is called {url}")


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = settings.secret(name, "qdrant.api_key")
    if key is None and name != KEY:
        raise UsageError(f"qdrant.api_key: neither an environment variable nor a Prefect Secret is called {name}")
    return key
