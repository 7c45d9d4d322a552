"""Opens a store by the name a plan gives it. A vendor's client is imported only when its store is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.stores.interface import Metric, Source


def open_source(
    spec: dict[str, Any],
    collections: Sequence[str] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    fresh: bool = True,
) -> Source:
    """The source of a plan: {"store": name, **options}; ``token`` is the name of a secret. ``collections`` are those that
    will be read of it (None: all), and ``metrics`` those that a plan has found. Without ``fresh``, where the store is
    read as it was at one moment, that moment is the last that this process has looked at.

    Raises UsageError when there is nothing to open.
    """
    options = dict(spec)
    store = options.pop("store")
    if store == "chroma":
        from tasks.stores.chroma import store as chroma

        if name := options.pop("token", None):
            options["token"] = settings.secret(name, "chroma.token")
            if options["token"] is None:
                raise UsageError(f"chroma.token: neither an environment variable nor a Prefect Secret is called {name}")
        return chroma.read(**options, home=settings.home(), collections=collections, metrics=metrics, fresh=fresh)
    if store == "memory":
        from tasks.stores import memory

        return memory.named(**options)
    raise UsageError(f"there is no store called {store!r}")
