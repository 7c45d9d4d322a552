"""Opens a store by the name a plan gives it. A vendor's client is imported only when its store is asked for."""

from typing import Any

from tasks import settings
from tasks.errors import UsageError
from tasks.stores.interface import Source


def open_source(spec: dict[str, Any]) -> Source:
    """The source of a plan: {"store": name, **options}; ``token`` is the name of a secret.

    Raises UsageError when there is nothing to open.
    """
    options = dict(spec)
    store = options.pop("store")
    if store == "chroma":
        from tasks.stores import chroma

        if name := options.pop("token", None):
            options["token"] = settings.secret(name, "chroma.token")
            if options["token"] is None:
                raise UsageError(f"chroma.token: neither an environment variable nor a Prefect Secret is called {name}")
        return chroma.connect(**options)
    if store == "memory":
        from tasks.stores import memory

        return memory.named(**options)
    raise UsageError(f"there is no store called {store!r}")
