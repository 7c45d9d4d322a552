"""HTTP connections to a server of the embeddings API: its certificates, the proxy in front of it, and what goes with every
request. By the environment, as OpenAI's own client takes it.

Not by that client: it imports ten thousand lines of types for other APIs, and its HTTP reads an answer of two megabytes in
thirty-two pieces, each with the interpreter's lock in hand.
"""

import os
import ssl
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3

from tasks.base.errors import UsageError
from tasks.embedders.openai.address import Address

ALIKE = {"num_pools": 2, "retries": urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=5)}
"""Nothing is sent twice but where the server says that it has moved."""
ACCOUNT = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
"""Environment variable → header."""


def pool(base_url: str, size: int) -> urllib3.PoolManager:
    """Up to ``size`` connections that are kept, for several threads. Raises UsageError where the environment names a proxy that is
    none for HTTP."""
    parts = urlsplit(base_url)
    settings: dict[str, Any] = {
        **ALIKE,
        "maxsize": size,
        "ssl_context": _certificates() if parts.scheme == "https" else None,
    }
    if not (proxy := _proxy(parts.scheme, parts.netloc.rpartition("@")[2])):
        return urllib3.PoolManager(**settings)
    written = urlsplit(proxy)
    if written.scheme not in ("http", "https"):
        raise UsageError(
            f"the environment names a proxy for {parts.scheme} of the kind {written.scheme!r}: name an HTTP proxy"
        )
    known = f"{unquote(written.username)}:{unquote(written.password or '')}" if written.username else None
    headers = urllib3.make_headers(proxy_basic_auth=known)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **settings)


def headers(address: Address, key: str) -> dict[str, str]:
    """What goes with every request. Raises UsageError for a key that no header can carry."""
    if not (key.isascii() and key.isprintable()):
        raise UsageError("OPENAI_API_KEY holds a character that no key has, such as the end of a line")
    given = os.environ.get("OPENAI_CUSTOM_HEADERS", "")
    custom = (line.split(":", 1) for line in given.splitlines() if ":" in line)
    return {
        **urllib3.make_headers(accept_encoding=True, user_agent="vecferry"),
        "Content-Type": "application/json",
        **({"api-key": key} if address.azure else {"Authorization": f"Bearer {key}"}),
        **{header: os.environ[name] for name, header in ACCOUNT.items() if os.environ.get(name)},
        **{name.strip(): value.strip() for name, value in custom},
    }


def _certificates() -> ssl.SSLContext:
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)


def _proxy(scheme: str, host: str) -> str | None:
    """The address of the proxy for it, if the environment names one."""
    proxies = getproxies()
    written = proxies.get(scheme) or proxies.get("all")
    if not written or proxy_bypass(host):
        return None
    return written if "://" in written else f"http://{written}"
