"""Chroma's clients of a directory or a server: how they are opened, and what their errors mean."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import chromadb
import httpx
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import AuthorizationError, ChromaError, InternalError, NotFoundError, RateLimitError

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.stores.chroma.segment import DATABASE

_OPENING = threading.Lock()
"""Chroma keeps one system a directory and process, and two threads that open it first at once break each other."""

_REACHED: set[str] = set()
"""What this process has opened: it was there, so failing to open it again may pass by itself."""


def directory(path: str) -> str:
    """The whole path of a Chroma directory. Raises UsageError where there is none."""
    place = os.path.abspath(path)
    if not os.path.exists(os.path.join(place, DATABASE)):
        what = f"holds no Chroma database ({DATABASE})" if os.path.isdir(place) else "does not exist"
        raise UsageError(f"chroma.path: {place} {what}; nothing was created there")
    return place


def persistent(place: str, folder: str, tenant: str, database: str) -> ClientAPI:
    """The client of ``folder``, which messages call ``place``: itself, or a copy of it.

    It is opened twice. The first client migrates what an older version wrote, and a connection of its pool may go on with the
    tables as they were: one start in sixty ended in a panic (ColumnNotFound) at the first count.
    """
    options = {"path": folder, "settings": quiet(), "tenant": tenant, "database": database}
    _opened(place, chromadb.PersistentClient, **options).close()
    return _opened(place, chromadb.PersistentClient, **options)


def http(
    place: str, host: str | None, port: int, ssl: bool, headers: dict[str, str] | None, tenant: str, database: str
) -> ClientAPI:
    """The client of a server at ``place``. Raises UsageError when it cannot be reached, and TransientError when it could be a
    moment ago."""
    return _opened(
        place,
        chromadb.HttpClient,
        host=host,
        port=port,
        ssl=ssl,
        headers=headers,
        settings=quiet(),
        tenant=tenant,
        database=database,
    )


def quiet() -> Settings:
    """Those of a client that tells nobody of its use."""
    return Settings(anonymized_telemetry=False)


def _opened(place: str, make: Any, **options: Any) -> ClientAPI:
    try:
        with _OPENING:
            client: ClientAPI = make(**options)
        _REACHED.add(place)
        return client
    except NotFoundError as error:
        raise UsageError(f"{place}: {error}; check chroma.tenant and chroma.database") from error
    except (ValueError, httpx.TransportError) as error:
        if place in _REACHED:
            raise TransientError(f"lost the connection to Chroma at {place}: {error}") from error
        raise UsageError(
            f"cannot reach Chroma at {place}: {error} Is `chroma run` up, and are chroma.host, chroma.port and "
            f"chroma.ssl right?"
        ) from error
    except ChromaError as error:
        raise UsageError(f"{place}: {error}{'; check chroma.token' if '://' in place else ''}") from error


@contextmanager
def classified(place: str) -> Iterator[None]:
    """Turns Chroma's errors into the classes of tasks.base.errors; ``place`` is its directory or URL."""
    try:
        yield
    except (httpx.TransportError, InternalError, RateLimitError) as error:
        if "://" not in place and "locked" not in str(error):  # a directory says the same the next time
            raise FatalError(f"Chroma cannot read {place}: {error}") from error
        raise TransientError(f"Chroma at {place}: {type(error).__name__}: {error}") from error
    except AuthorizationError as error:
        raise FatalError(f"Chroma at {place} refuses the token: {error}; check chroma.token") from error
    except ChromaError as error:
        raise FatalError(f"Chroma at {place}: {error}") from error
    except Exception as error:
        # What something before Chroma answers is a bare Exception of its text; the status is in what it was raised from.
        answer = error.__context__
        if isinstance(answer, httpx.HTTPStatusError):
            status = answer.response.status_code
            kind = TransientError if status in (429, 502, 503, 504) else FatalError
            raise kind(f"Chroma at {place}: {status}: {str(error)[:300]}") from error
        raise
