"""What Qdrant refuses, in the classes of tasks.base.errors."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import orjson
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tasks.base.errors import FatalError, TransientError

PASSING = (408, 429, 500, 502, 503, 504)
"""Statuses that may pass by themselves."""
LONGEST = 300
"""Characters of an answer that a message shows."""
_DISK = re.compile(r"no space|disk (is )?full|disk space|free space|insufficient storage", re.IGNORECASE)
_LIMIT = re.compile(r"limit exceeded|payload reached size limit|too large|batch ?size", re.IGNORECASE)
_LOCAL = (ValueError, KeyError, RuntimeError, NotImplementedError, sqlite3.Error, OSError)
"""What qdrant-client's local mode raises, for want of a server's statuses."""


class AbsentError(FatalError):
    """There is no such collection, vector or point."""


class TooMuchError(FatalError):
    """The server takes or gives fewer points at once."""


@contextmanager
def refused(place: str) -> Iterator[None]:
    """While the body runs, what Qdrant refuses is raised as one of our classes. ``place`` is the server's URL, or the
    directory of local mode."""
    try:
        yield
    except UnexpectedResponse as error:
        raise refusal(place, error.status_code or 0, error.content) from error
    except ResourceExhaustedResponse as error:
        raise TransientError(f"Qdrant at {place}: 429: {error}") from error
    except ResponseHandlingException as error:
        raise lost(place, error.source) from error
    except httpx.HTTPError as error:
        raise lost(place, error) from error
    except _LOCAL as error:
        if "://" in place:
            raise
        raise _of_local(place, error) from error


def refusal(place: str, status: int, content: bytes) -> FatalError | TransientError:
    """What an answer with this status and body means."""
    reason = content[:LONGEST].decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        reason = orjson.loads(content)["status"]["error"]
    line = f"Qdrant at {place}: {status}: {' '.join(reason.split())[:LONGEST]}"
    if status == httpx.codes.INSUFFICIENT_STORAGE or (status in PASSING and _DISK.search(reason)):
        return FatalError(f"{line}; free some space on the server's disk")
    if status in PASSING:
        return TransientError(line)
    if status == httpx.codes.NOT_FOUND:
        return AbsentError(line)
    if status == httpx.codes.UNAUTHORIZED:
        return FatalError(f"{line}; check qdrant.api_key")
    if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE or _LIMIT.search(reason):
        return TooMuchError(line)
    if status == httpx.codes.FORBIDDEN:
        return FatalError(f"{line}; check that the key named by qdrant.api_key may do this")
    return FatalError(line)


def lost(place: str, error: Exception) -> FatalError | TransientError:
    """What an error on the way to a server means."""
    if isinstance(error, httpx.TransportError):
        return TransientError(f"Qdrant at {place}: {type(error).__name__}: {error}")
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FatalError(f"Qdrant at {place} sent an answer that cannot be read: {first[:LONGEST]}")


def _of_local(place: str, error: Exception) -> FatalError:
    if isinstance(error, KeyError):  # local mode's answer to an id that is not there
        return AbsentError(f"Qdrant's local mode at {place} has no point {error}")
    line = f"Qdrant's local mode at {place}: {' '.join(str(error).split())[:LONGEST] or type(error).__name__}"
    return AbsentError(line) if str(error).endswith("not found") else FatalError(line)
