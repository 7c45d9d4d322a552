"""Where the files behind references are read from."""

from typing import Protocol

from tasks.base.errors import UsageError
from tasks.base.settings import secret
from tasks.contents.image.addresses import Allowed
from tasks.contents.image.local import Directory
from tasks.contents.image.options import Options
from tasks.contents.image.remote import Remote
from tasks.contents.image.rows import Rows
from tasks.contents.image.site import Site
from tasks.contents.image.supabase import Bucket, headers
from tasks.contents.image.web import Web
from tasks.embedders.interface import RowError

LOCAL = ("file://", "local://")


class Source(Protocol):
    """Threads share it, until it is closed."""

    def read(self, reference: str, once: bool = False) -> bytes | RowError:
        """The whole file, or why it is not to be had; what may pass is tried several times, or once. Raises Unavailable where
        that may be the file's own fault, else TransientError, and FatalError where no file of this source can be had."""
        ...

    def host(self, reference: str) -> str:
        """Who has the file: where that is down, all that it has are not to be had."""
        ...

    def stop(self) -> None:
        """What waits in another thread raises TransientError."""
        ...

    def close(self) -> None:
        """Stops, and lets go of connections."""
        ...


def open_source(options: Options) -> Source:
    """The one that the options name; nothing is asked of it yet. Raises UsageError for options that name none."""
    root, most = options.root, options.max_bytes
    if options.database:
        if root or not (options.table and options.column and options.key):
            raise UsageError("images.database goes with table, column and key, and without root")
        return Rows(options.database, options.table, options.column, options.key, most)
    if not root:
        raise UsageError("images.root: say where the images are: a directory, a URL that fsspec knows, or https://…")
    allowed = Allowed(options.allow_hosts)
    if options.bucket:
        return Bucket(root, options.bucket, options.service_key, _web(options, allowed, _key(options)))
    if root.startswith(("https://", "http://")):
        return Site(root, _web(options, allowed, {}))
    if "://" in root and not root.startswith(LOCAL):
        return Remote(root, most)
    return Directory(root.partition("://")[2] or root, most)  # links are followed, and judged, only there


def _web(options: Options, allowed: Allowed, sent: dict[str, str]) -> Web:
    return Web(allowed, options.max_bytes, options.concurrency, headers=sent)


def _key(options: Options) -> dict[str, str]:
    if not options.service_key:
        return {}
    if key := secret(options.service_key, "images.service_key"):
        return headers(key)
    raise UsageError(
        f"images.service_key: neither an environment variable nor a Prefect Secret block is called {options.service_key}"
    )
