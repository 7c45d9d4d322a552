"""Files over HTTP. Redirects are followed by hand, so that each hop is judged as the first was; sizes and times are bounded."""

import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import httpcore
import httpx

from tasks.base.retry_after import retry_after
from tasks.base.words import counted
from tasks.contents.image.addresses import Allowed, Resolve, resolve
from tasks.contents.image.connections import CONNECT_SECONDS, SILENT_SECONDS, Clock, Refused, TooSlow, pool
from tasks.contents.image.local import too_large
from tasks.contents.image.patience import LONGEST_WAIT, Later, Patience
from tasks.embedders.interface import RowError
from tasks.embedders.pictures import measure

HOPS = 5
SECONDS = 120.0
"""A whole file may take, redirects and all: 32 MiB at 280 KB/s."""
_TRANSIENT = {408, 425, 429}
_MISSING, _DENIED = {404, 410}, {401, 402, 403, 407, 451}
_AGENT = "vecferry"


@dataclass(frozen=True)
class Answer:
    """What a host said last, after its redirects."""

    url: httpx.URL
    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes


Answered = Callable[[Answer], "RowError | Later | None"]
"""What an answer means where a host has words of its own; None where it means what HTTP says."""


@dataclass(frozen=True)
class Web:
    """Gets files by their URLs. Threads share it."""

    allowed: Allowed
    max_bytes: int
    connections: int
    patience: Patience = field(default_factory=Patience)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the host that is asked first, and to no other: keys are among them."""
    seconds: float = SECONDS
    silence: float = SILENT_SECONDS
    resolver: Resolve = resolve

    @cached_property
    def _pool(self) -> httpcore.ConnectionPool:
        return pool(self.allowed, self._clock, self.connections, self.resolver)

    @cached_property
    def _clock(self) -> Clock:
        return Clock()

    @cached_property
    def _pauses(self) -> dict[str, float]:
        """Of hosts that ask to be left alone, until when: it is meant for all who ask."""
        return {}

    def get(self, name: str, url: httpx.URL, answered: Answered | None = None, once: bool = False) -> bytes | RowError:
        """The file at ``url``, which messages call ``name``. Raises what Patience.read raises, and what ``answered`` raises of
        an answer other than 200 before it is judged."""

        def attempt() -> bytes | RowError | Later:
            result: bytes | RowError | Later
            self._pause(name, host(url))
            answer = self._follow(name, url)
            if isinstance(answer, Answer):
                result = (answered(answer) if answered and answer.status != 200 else None) or _judged(name, answer)
            else:
                result = answer
            if isinstance(result, Later) and result.seconds and result.seconds <= LONGEST_WAIT:
                self._pauses[host(url)] = time.monotonic() + result.seconds
            return result

        return self.patience.read(name, attempt, once)

    def _pause(self, name: str, host: str) -> None:
        while (left := self._pauses.get(host, 0.0) - time.monotonic()) > 0:
            self.patience.wait(name, left)

    def _follow(self, name: str, url: httpx.URL) -> Answer | RowError | Later:
        first, began = url, time.monotonic()
        try:
            with self._clock.limited(self.seconds):
                for _ in range(HOPS + 1):
                    if refusal := self._refusal(url):
                        return RowError("forbidden", f"{name}: {refusal}")
                    answer = self._ask(name, url, self.headers if origin(url) == origin(first) else {})
                    if not isinstance(answer, Answer) or not 300 <= answer.status < 400:
                        return answer
                    if "location" not in answer.headers:
                        return RowError(
                            "refused", f"{name}: {host(url)} says {answer.status} and does not say where to go instead"
                        )
                    url = url.join(answer.headers["location"])
            return RowError("refused", f"{name}: {first.host} redirects more than {counted(HOPS, 'time')}")
        except Refused as refused:
            return RowError("forbidden", f"{name}: {refused}")
        except (httpx.InvalidURL, UnicodeError, httpcore.LocalProtocolError) as error:
            return RowError("forbidden", f"{name}: no URL that can be asked: {error}")
        except TooSlow:
            return self._too_slow(name, url)
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
                return RowError("missing", f"{name}: there is no host {host(url)}")
            return Later(f"{host(url)}: {error.strerror}")
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError):
                return RowError("untrusted", f"{name}: {host(url)} has no valid certificate: {error}")
            return Later(f"{host(url)}: {error}")
        except httpcore.TimeoutException:
            if time.monotonic() - began >= self.seconds:
                return self._too_slow(name, url)
            return Later(f"{host(url)}: no answer within {self.silence:g} s")
        except httpcore.RemoteProtocolError as error:
            if not re.search("disconnected|closed connection", str(error)):
                return RowError("refused", f"{name}: {host(url)} does not speak HTTP: {error}")
            return Later(f"{host(url)}: {error}")
        except (httpcore.NetworkError, OSError) as error:
            return Later(f"{host(url)}: {str(error) or type(error).__name__}")

    def _too_slow(self, name: str, url: httpx.URL) -> RowError:
        return RowError("too_slow", f"{name}: {host(url)} had not sent all of it after {self.seconds:g} s")

    def _refusal(self, url: httpx.URL) -> str | None:
        """Why this URL is not asked for, whatever its host's address is."""
        listed = self.allowed.lists(host(url), port(url))
        if url.scheme not in ("http", "https") or not host(url):
            return f"{str(url)[:200]!r} is not an https URL"
        if not 0 < port(url) < 1 << 16:  # the resolver would make another of it
            return f"{host(url)} has no port {port(url)}"
        if url.userinfo:
            return f"the URL of {host(url)} has a user's name in it"
        if url.scheme == "http" and not listed:
            return f"{host(url)} is asked by plain http; list it in images.allow_hosts if that is meant"
        if port(url) != 443 and not listed:
            return f"{host(url)} is asked at port {port(url)}; list {host(url)}:{port(url)} in images.allow_hosts if that is meant"
        return None

    def _ask(self, name: str, url: httpx.URL, extra: Mapping[str, str]) -> Answer | RowError:
        # The parts that were judged are those that are sent: nothing parses the URL a second time.
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=port(url), target=url.raw_path)
        fields = {
            "Host": url.netloc.decode(),
            "User-Agent": _AGENT,
            "Accept": "image/*, */*;q=0.1",
            "Accept-Encoding": "identity",
            **extra,
        }
        timeout = {"connect": CONNECT_SECONDS, "read": self.silence, "write": self.silence, "pool": self.seconds}
        with self._pool.stream(
            "GET", target, headers=list(fields.items()), extensions={"timeout": timeout}
        ) as response:
            headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in response.headers}
            length = headers.get("content-length", "")
            if response.status == 200 and length.isdigit() and int(length) > self.max_bytes:
                return too_large(name, int(length), self.max_bytes)
            most = self.max_bytes if response.status == 200 else min(self.max_bytes, 1 << 16)
            body = bytearray()
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > most:
                    if response.status == 200:
                        return too_large(name, len(body), self.max_bytes)
                    break
        return Answer(url, response.status, headers, bytes(body))

    def stop(self) -> None:
        self.patience.stopped.set()

    def close(self) -> None:
        self.stop()
        self._pool.close()


def host(url: httpx.URL) -> str:
    """As it is asked for by the resolver, and listed."""
    return url.raw_host.decode("ascii")


def port(url: httpx.URL) -> int:
    """The one that is meant where none is written."""
    return url.port or (80 if url.scheme == "http" else 443)


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port."""
    return url.scheme, host(url), port(url)


def _judged(name: str, answer: Answer) -> bytes | RowError | Later:
    """What an answer means by its status (RFC 9110, 15)."""
    status, place = answer.status, host(answer.url)
    kind = answer.headers.get("content-type", "")
    if status == 200 and answer.headers.get("content-encoding", "identity") not in ("", "identity"):
        return RowError("refused", f"{name}: {place} sends it as {answer.headers['content-encoding']}, unasked")
    if status == 200 and "html" in kind and isinstance(measure(answer.body), RowError):
        return RowError("page", f"{name}: {place} says 200 with a web page ({kind})")
    if status == 200:
        return answer.body
    if status in _TRANSIENT or status >= 500:
        return Later(f"{place} says {status}", retry_after(answer.headers), throttled=status == 429)
    if status in _MISSING:
        return RowError("missing", f"{name}: {place} says {status}")
    if status in _DENIED:
        return RowError("denied", f"{name}: {place} says {status}")
    return RowError("refused", f"{name}: {place} says {status}")
