"""Writes of points: at once, after a lag, and those whose points are deferred."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from tests.helpers import qdrant_points
from tests.helpers.qdrant_engine import JSON, Refused
from tests.helpers.qdrant_optimizers import defers, new_points, started
from tests.helpers.qdrant_state import Request, Served, at
from tests.helpers.qdrant_storage import Collection, answered
from tests.helpers.qdrant_strict import check_write


async def write_points(served: Served, request: Request) -> JSON:
    """Any write of points."""
    return await written(served, at(served, request), request, request.operation, request.body)


async def batch_update(served: Served, request: Request) -> list[JSON]:
    """Several writes in turn; one that is refused leaves those before it."""
    collection = at(served, request)
    named = [(qdrant_points.BATCHED[kind], body) for one in request.body["operations"] for kind, body in one.items()]
    return [await written(served, collection, request, operation, body) for operation, body in named]


async def written(served: Served, collection: Collection, request: Request, operation: str, body: JSON) -> JSON:
    """Does it now, or after a lag where the request does not wait. Writes keep their order."""
    check_write(collection, operation, body)
    with answered():
        made = qdrant_points.WRITES[operation](body)
    loop = asyncio.get_running_loop()

    def apply() -> int:
        ids = qdrant_points.upserted(body) if operation == "upsert_points" and served.unoptimized else []
        new = new_points(collection, ids)
        number = collection.update(made)
        if defers(served, collection):
            collection.deferred |= new
        started(served, collection)
        return number

    queue = served.waiting.setdefault(collection.name, [])
    if not request.wait and served.lag:
        queue.append(apply)
        loop.call_later(served.lag, overtake, served, collection, apply)
        return {"operation_id": collection.operations + len(queue), "status": "acknowledged"}
    for earlier in list(queue):
        overtake(served, collection, earlier)
    number = apply()
    until = None if request.timeout is None else loop.time() + request.timeout
    while request.wait and served.unoptimized and collection.deferred:  # until what was written can be read
        if until is not None and loop.time() >= until:
            return {"operation_id": number, "status": "wait_timeout"}
        await asyncio.sleep(0.01)
    return completed(request, number)


def overtake(served: Served, collection: Collection, apply: Callable[[], Any]) -> None:
    """Applies a write that is waiting, if it still is. What the engine refuses of it nobody is told, as with Qdrant."""
    queue = served.waiting.get(collection.name, [])
    if apply in queue:
        queue.remove(apply)
        try:
            apply()
        except Refused as refused:
            print(f"{collection.name}: {refused.message}", file=sys.stderr)


def completed(request: Request, number: int) -> JSON:
    return {"operation_id": number, "status": "completed" if request.wait else "acknowledged"}
