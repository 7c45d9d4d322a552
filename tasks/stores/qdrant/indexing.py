"""Indexing: held back while many points are written, put back after, and waited for."""

import time
from collections.abc import Mapping
from typing import Any

from tasks.base.errors import FatalError, TransientError
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.configuration import info
from tasks.stores.qdrant.points import path

THRESHOLD, HIDING = "indexing_threshold", "prevent_unoptimized"
"""The optimizer's settings: the KB from which on a segment is indexed, 0 for never; and whether points are hidden until it is."""
GREEN, BUSY, GREY = "green", "yellow", "grey"
"""Statuses of a collection: all is indexed; the optimizer is at work; it waits."""
DEFAULT = 10_000
"""Qdrant's own threshold, where a collection keeps none."""
FIRST_LOOK, SLOWEST = 0.1, 5.0
"""Seconds between two looks at whether the index is built."""


def hold_back(qdrant: Qdrant, collection: str) -> None:
    """Stops indexing until ``put_back``, and the hiding of points that are not indexed."""
    hides = info(qdrant, collection)["config"]["optimizer_config"].get(HIDING)
    _set(qdrant, collection, {THRESHOLD: 0, **({HIDING: False} if hides else {})})


def put_back(qdrant: Qdrant, collection: str, settings: Mapping[str, Any]) -> None:
    """Lets the collection be indexed as the ``settings``, an ``optimizer_config``, say."""
    threshold, hides = settings.get(THRESHOLD), settings.get(HIDING)
    hiding = {} if hides is None else {HIDING: hides}
    _set(qdrant, collection, {THRESHOLD: DEFAULT if threshold is None else threshold, **hiding})


def is_held_back(qdrant: Qdrant, collection: str) -> bool:
    """Whether nothing is indexed."""
    return qdrant.server.indexes and info(qdrant, collection)["config"]["optimizer_config"].get(THRESHOLD) == 0


def wait_for_green(qdrant: Qdrant, collection: str, seconds: float | None = None) -> None:
    """Returns when everything is indexed that is to be. Raises FatalError where the optimizer has failed, TransientError where
    it takes longer than ``seconds``."""
    if (state := settled(qdrant, collection, seconds, asks=True)) != GREEN:
        raise TransientError(f"collection {collection} at {qdrant.place} is still being indexed: its status is {state}")


def settled(qdrant: Qdrant, collection: str, seconds: float | None = None, asks: bool = False) -> str:
    """The collection's status: ``green`` once everything is indexed that is to be, or what it is after ``seconds``. One that is
    ``grey`` waits to be asked, as after a restart of the server: with ``asks`` it is, which changes it; else nothing is waited
    for. Raises FatalError where the optimizer has failed."""
    pause, end = FIRST_LOOK, None if seconds is None else time.monotonic() + seconds
    while True:
        now = info(qdrant, collection)
        failed = now.get("optimizer_status")
        if now["status"] == "red" or isinstance(failed, dict):
            reason = failed["error"] if isinstance(failed, dict) else "its status is red"
            raise FatalError(f"Qdrant at {qdrant.place} cannot index collection {collection}: {reason}")
        state = BUSY if now["status"] == GREEN and deferred(now) else str(now["status"])
        if state == GREEN or (state == GREY and not asks) or (end is not None and time.monotonic() > end):
            return state
        if state == GREY:
            _set(qdrant, collection, {})
        time.sleep(pause)
        pause = min(SLOWEST, pause * 1.5)


def deferred(answer: Mapping[str, Any]) -> int:
    """Points that are kept and hidden from reads until they are indexed (``prevent_unoptimized``), by what
    tasks.stores.qdrant.configuration.info returned."""
    return int((answer.get("update_queue") or {}).get("deferred_points") or 0)


def _set(qdrant: Qdrant, collection: str, settings: Mapping[str, Any]) -> None:
    if qdrant.rest:
        qdrant.rest.send("PATCH", path(collection), {"optimizers_config": dict(settings)})
