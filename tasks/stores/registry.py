"""Opens a store by the name a plan gives it. A vendor's client is imported only when its store is asked for."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from tasks.base.errors import UsageError
from tasks.stores.interface import Selected, Source

STORES: dict[str, str] = {
    "chroma": "tasks.stores.chroma.store",
    "live_tables": "tasks.stores.postgres.live_table",
    "memory": "tasks.stores.memory",
}
"""Name → the module whose ``source`` opens it."""


def open_source(
    spec: dict[str, Any], selected: Sequence[Selected] | None = None, fresh: bool = True, url: str = ""
) -> Source:
    """The source of a plan: {"store": name, **options}; a secret among the options is a name. ``selected`` are the collections
    that will be read of it (None: all). Without ``fresh``, where the store is read as it was at one moment, that moment is
    the last that this process has looked at. ``url`` is the run's own database, for a source that lies there.

    Raises UsageError when there is nothing to open.
    """
    options = dict(spec)
    store = options.pop("store")
    if store not in STORES:
        raise UsageError(f"no store is called {store!r}; the stores are {', '.join(STORES)}")
    opened: Source = import_module(STORES[store]).source(options, selected, fresh, url)
    return opened
