"""Records of a Chroma server, over its REST API (v2).

Chroma's own client makes a Python float of every component, which takes longer than the server needs to send it, and
its answers stay in memory until the cycle collector looks for them. Here components go from the answer's text into an
array.
"""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import orjson
import simdjson
from chromadb.base_types import SparseVector

from tasks.base.errors import FatalError, TransientError
from tasks.stores.chroma.listing import Most, TooMuch, listed

PASSING = (408, 429, 500, 502, 503, 504)
"""Statuses that may pass by themselves."""
DELETED_MEANWHILE = "Error finding id"
"""What Chroma 1.5 answers, with a 500, when a record is deleted while it reads it. The next answer is without it, so the
page is asked for again here: a task that starts its whole pass over would meet the next such record."""
PAUSES = (0.0, 0.02, 0.1, 0.5, 1.0)
"""Seconds before each further try."""

LISTED, LISTED_COLLECTIONS = 30_000, 1_000
"""Ids, and collections, that are asked for at once where nobody refuses."""
_QUOTA = re.compile("quota|limit|exceed|too many|too large", re.IGNORECASE)

_THREAD = threading.local()
"""A client a thread: its connection is used by one at a time."""
_MOST: dict[str, Most] = {}
"""How many records a server gives at once, by its address: what it refused once it refuses whoever asks next."""


@dataclass(frozen=True)
class Page:
    """One answer, its columns in the same order."""

    ids: list[str]
    documents: list[str | None]
    metadatas: list[dict[str, Any] | None]
    uris: list[str | None]
    embeddings: np.ndarray | list[list[float] | None] | None
    """float32[n, d]; a list where some records have no vector; None where none has."""


@dataclass(frozen=True)
class Server:
    """One tenant and database of a server."""

    session: httpx.Client
    place: str
    """The server's URL, for messages."""

    def pages(self, collection_id: str, ids: Sequence[str]) -> Iterator[Page]:
        """The records of ``ids`` that exist, in as many answers as the server takes. One that leaves records out may
        have cut them off: those are asked for again until an answer has none of them. Raises TransientError and
        FatalError."""
        most, pending = self.most, list(dict.fromkeys(ids))
        while pending:
            part, rest = pending[: most.rows], pending[most.rows :]
            try:
                page = self._records(collection_id, part)
            except TooMuch as refusal:
                if not most.lower(len(part), refusal):
                    raise FatalError(str(refusal)) from refusal
                continue
            yield page
            pending, left = rest, sorted(set(part) - set(page.ids))
            if left and page.ids:
                more = self._records(collection_id, left)
                yield more
                if len(more.ids) == min(len(page.ids), len(left)):  # cut off once more, or not any longer
                    most.rows = min(most.rows, len(page.ids))
                if more.ids:
                    pending = sorted(set(left) - set(more.ids)) + rest

    def ids(self, collection_id: str, name: str) -> list[str]:
        """Every id of the collection. Raises FatalError where the server lists fewer than it counts."""
        path = f"collections/{collection_id}"

        def ask(limit: int, offset: int) -> list[str]:
            return self._ids(collection_id, limit, offset)

        def count() -> int:
            return int(orjson.loads(self._get(f"{path}/count").content))

        return listed(ask, count, self.most, f"records of {name!r} at {self.place}")

    def some_ids(self, collection_id: str, count: int) -> list[str]:
        """The first ids, ``count`` at the most."""
        while True:
            limit = min(count, self.most.rows)
            try:
                return self._ids(collection_id, limit, 0)
            except TooMuch as refusal:
                if not self.most.lower(limit, refusal):
                    raise FatalError(str(refusal)) from refusal

    def names(self) -> list[str]:
        """The name of every collection. Raises FatalError where the server lists fewer than it counts."""

        def ask(limit: int, offset: int) -> list[str]:
            page = orjson.loads(self._get(f"collections?limit={limit}&offset={offset}").content)
            return [collection["name"] for collection in page]

        def count() -> int:
            return int(orjson.loads(self._get("collections_count").content))

        return sorted(listed(ask, count, self.most_collections, f"collections at {self.place}"))

    @property
    def most(self) -> Most:
        """Records an answer."""
        return _MOST.setdefault(self.place, Most(LISTED))

    @property
    def most_collections(self) -> Most:
        """Collections an answer."""
        return _MOST.setdefault(f"{self.place}/collections", Most(LISTED_COLLECTIONS))

    def _records(self, collection_id: str, ids: list[str]) -> Page:
        # With a limit: a server that allows fewer says so, where it would cut off an answer without one.
        body = {"ids": ids, "limit": len(ids), "include": ["embeddings", "documents", "metadatas", "uris"]}
        answer = self._post(f"collections/{collection_id}/get", orjson.dumps(body))
        for pause in PAUSES:
            if answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR or DELETED_MEANWHILE not in answer.text:
                break
            time.sleep(pause)
            answer = self._post(f"collections/{collection_id}/get", orjson.dumps(body))
        _check(self.place, answer)
        try:
            return _page(answer.content)
        except (ValueError, KeyError) as error:
            raise TransientError(f"Chroma at {self.place} sent an answer that cannot be read: {error}") from error

    def _ids(self, collection_id: str, limit: int, offset: int) -> list[str]:
        body = orjson.dumps({"limit": limit, "offset": offset, "include": []})
        answer = self._post(f"collections/{collection_id}/get", body)
        _check(self.place, answer)
        ids: list[str] = orjson.loads(answer.content)["ids"]
        return ids

    def _get(self, path: str) -> httpx.Response:
        try:
            answer = self.session.get(path)
        except httpx.TransportError as error:
            raise TransientError(f"Chroma at {self.place}: {type(error).__name__}: {error}") from error
        _check(self.place, answer)
        return answer

    def _post(self, path: str, body: bytes) -> httpx.Response:
        try:
            return self.session.post(path, content=body)
        except httpx.TransportError as error:
            raise TransientError(f"Chroma at {self.place}: {type(error).__name__}: {error}") from error


def connect(place: str, tenant: str, database: str, headers: dict[str, str] | None) -> Server:
    """A session with the server; nothing is asked yet."""
    session = httpx.Client(
        base_url=f"{place}/api/v2/tenants/{tenant}/databases/{database}/",
        headers={"Content-Type": "application/json", **(headers or {})},
        timeout=httpx.Timeout(300, connect=10),
        event_hooks={"response": [_release]},
    )
    return Server(session, place)


def _release(response: httpx.Response) -> None:
    # An httpx response and its stream refer to each other, so that its bytes, 10 MB a page, would stay until Python
    # looks for cycles among its oldest objects, which is after a hundred pages.
    response.read()
    response.stream = httpx.ByteStream(b"")


def _page(content: bytes) -> Page:
    answer = _parsed(content)
    ids = answer["ids"].as_list()
    page = answer["embeddings"]
    embeddings: np.ndarray | list[list[float] | None] | None = None
    if page is not None and len(page):
        try:
            embeddings = np.frombuffer(page.as_buffer(of_type="d")).astype(np.float32).reshape(len(ids), -1)
        except (TypeError, ValueError):  # some have none
            embeddings = page.as_list()
    documents, metadatas, uris = (_column(answer[name], len(ids)) for name in ("documents", "metadatas", "uris"))
    return Page(ids, documents, [_plain(m) for m in metadatas], uris, embeddings)


def _parsed(content: bytes) -> Any:
    """The answer, to be used up before this thread's next one: both live in the memory of its parser, which is kept,
    since mapping that much anew for each page takes longer than parsing it."""
    try:
        return _THREAD.parser.parse(content)
    except (AttributeError, RuntimeError):  # none yet, or an error's traceback still holds the last answer
        _THREAD.parser = simdjson.Parser()
        return _THREAD.parser.parse(content)


def _column(page: Any, count: int) -> list[Any]:
    return [None] * count if page is None else list(page.as_list())


def _plain(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Sparse vectors as Chroma's client writes them: the same record reads the same from a directory."""
    if metadata is None:
        return None
    return {k: SparseVector.from_dict(v).to_dict() if isinstance(v, dict) else v for k, v in metadata.items()}


def _check(place: str, answer: httpx.Response) -> None:
    """Raises TooMuch where fewer records at once may be allowed, else what the status means."""
    if answer.is_success:
        return
    error = _refusal(place, answer)
    if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE or (
        answer.status_code in (400, 422) and _QUOTA.search(str(error))
    ):
        raise TooMuch(str(error))
    raise error


def _refusal(place: str, answer: httpx.Response) -> FatalError | TransientError:
    message = answer.text[:300]
    with suppress(ValueError, KeyError, TypeError):
        message = orjson.loads(answer.content)["message"]
    reason = f"Chroma at {place}: {answer.status_code}: {message}"
    if answer.status_code in PASSING:
        return TransientError(reason)
    return FatalError(f"{reason}; check chroma.token" if answer.status_code in (401, 403) else reason)
