"""Opens a store by the name a plan gives it. A vendor's client is imported only when its store is asked for."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from tasks.base.errors import UsageError
from tasks.stores.interface import Connect, Selected, Sink, Source


class Restored(Source, Sink, Protocol):
    """A store that is written to, and then counted."""


STORES: dict[str, str] = {
    "chroma": "tasks.stores.chroma.store",
    "live_tables": "tasks.stores.postgres.live_records",
    "memory": "tasks.stores.memory",
    "qdrant": "tasks.stores.qdrant.store",
}
"""Name → the module whose ``source`` opens it."""


RESTORED: dict[str, str] = {"chroma": "tasks.stores.chroma.store", "qdrant": "tasks.stores.qdrant.store"}
"""Name → the module whose ``create_directory`` makes an empty store that a snapshot is written back into, and whose ``opened_by`` says
what opens it."""


def create_store(store: str, into: str) -> Restored:
    """An empty store of that kind at ``into``. Raises UsageError where none can be made, or something is there already."""
    if store not in RESTORED:
        raise UsageError(
            f"a snapshot of {store} cannot be written back into such a store yet: use --format jsonl to write "
            "it out as JSON lines"
        )
    created: Restored = import_module(RESTORED[store]).create_directory(into)
    return created


def opened_by(store: str, into: str) -> str | None:
    """What opens a store of that kind that ``create_store`` has made at ``into``, for people; None where that needs no word."""
    told: str = import_module(RESTORED[store]).opened_by(into)
    return told or None


def open_source(
    spec: dict[str, Any], selected: Sequence[Selected] | None = None, fresh: bool = True, connect: Connect | None = None
) -> Source:
    """The source of a plan: {"store": name, **options}; a secret among the options is a name. ``selected`` are the collections
    that will be read of it (None: all). Without ``fresh``, where the store is read as it was at one moment, that moment is
    the last that this process has looked at. ``connect`` is for a source that lies in the run's own database.

    Raises UsageError when there is nothing to open.
    """
    options = dict(spec)
    store = options.pop("store")
    if store not in STORES:
        raise UsageError(f"no store is called {store!r}; available: {', '.join(STORES)}")
    opened: Source = import_module(STORES[store]).source(options, selected, fresh, connect)
    return opened
