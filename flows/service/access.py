"""Who may ask: whoever bears the token; where there is none, programs of this machine."""

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.service.options import is_loopback
from flows.service.problems import Refused, response

OPEN = frozenset({"/health", "/ready"})
"""What whoever runs the service asks without a token."""


class Access:
    """Refuses a request before anything of its body is read."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.expected = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN and (problem := self._problem(Headers(scope=scope))):
            await response(problem)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _problem(self, headers: Headers) -> Refused | None:
        if self.expected is None:
            return _foreign(headers)
        given = headers.get("authorization")
        if given is None:
            return Refused(
                401, "this service asks for a token: send the header Authorization: Bearer TOKEN", close=True
            )
        scheme, _, token = given.partition(" ")
        whole = f"{scheme.capitalize()} {token.strip()}".encode(errors="replace")
        if not hmac.compare_digest(whole, self.expected):
            return Refused(401, "that is not this service's token", close=True)
        return None


def _foreign(headers: Headers) -> Refused | None:
    """A page of the web, open in a browser of this machine, reaches its ports too: under a name of its own, or as another origin."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if host and not _of_this_machine(f"//{host}"):
        return Refused(403, "without a token only this machine may ask, by 127.0.0.1 or localhost", close=True)
    if origin is not None and not _of_this_machine(origin):
        return Refused(403, "without a token no page of another origin may ask: start the service with one", close=True)
    return None


def _of_this_machine(address: str) -> bool:
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:
        return False
