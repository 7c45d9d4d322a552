"""Files of a web site: a reference is the URL of a file below ``root``, or what follows ``root`` in it."""

import re
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

import httpx

from tasks.base.errors import FatalError
from tasks.contents.image.references import shown
from tasks.contents.image.web import Web, host, origin
from tasks.embedders.interface import RowError

ANYWHERE = "https://"
"""The root under which every URL is a reference."""
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Site:
    """What a path must not leave is judged on its decoded form, since some hosts decode it first."""

    root: str
    web: Web

    @cached_property
    def _base(self) -> httpx.URL:
        try:
            base = httpx.URL(self.root if self.root.endswith("/") else f"{self.root}/")
        except httpx.InvalidURL as error:
            raise FatalError(f"images.root: {self.root} is no URL: {error}") from error
        if base.query or base.fragment or base.userinfo:
            raise FatalError(
                f"images.root: write {base.scheme}://{base.host}{base.path} without user, query and fragment"
            )
        return base

    def read(self, reference: str, once: bool = False) -> bytes | RowError:
        url = self.located(reference)
        return url if isinstance(url, RowError) else self.web.get(shown(reference), url, once=once)

    def host(self, reference: str) -> str:
        url = self.located(reference)
        return "" if isinstance(url, RowError) else host(url)

    def located(self, reference: str) -> httpx.URL | RowError:
        """The URL that is meant: ``escapes`` where that is not below the root, ``reference`` where it is none."""
        name, text = shown(reference), reference
        if self.root == ANYWHERE:
            if not _ABSOLUTE.match(reference):
                return RowError("reference", f"{name} is not a URL, and images.root names no host")
        elif reference.startswith("//"):
            return RowError("escapes", f"{name} is not below {self.root}")
        elif not _ABSOLUTE.match(reference):
            relative = reference.replace("#", "%23")  # a name, not a place within the file
            text = (
                f"{self._base}{relative}"
                if relative[0] != "/"
                else str(self._base.copy_with(raw_path=b"/")) + relative[1:]
            )
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            return RowError("reference", f"{name} makes no URL: {error}")
        if climbs(text) or (self.root != ANYWHERE and not self._contains(url)):
            return RowError("escapes", f"{name} is not below {self.root}")
        return url

    def _contains(self, url: httpx.URL) -> bool:
        return origin(url) == origin(self._base) and url.path.startswith(self._base.path) and not url.userinfo

    def stop(self) -> None:
        self.web.stop()

    def close(self) -> None:
        self.web.close()


def climbs(path: str) -> bool:
    """Whether a path or URL has a segment ``.`` or ``..``, however often it is percent-encoded and whichever slash it is
    divided by."""
    path = path.partition("?")[0]
    for _ in range(4):
        path = unquote(path)
    return any(segment in (".", "..") for segment in path.replace("\\", "/").split("/"))
