"""Which hosts pictures may be fetched from. A reference is written by whoever fills the table, and must not make this machine
ask others that only it can reach (server-side request forgery; OWASP, "SSRF Prevention Cheat Sheet").

Allowed are public addresses by https at port 443, and what ``allow_hosts`` lists: ``minio``, ``minio:9000``, ``10.1.2.3``,
``10.0.0.0/8``. Plain http and other ports are for listed hosts. What decides is the address that a name leads to when the
connection is made, and that address is the one connected to.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from tasks.base.errors import UsageError

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST = IPv6Network("2000::/3")
"""All that is public of IPv6."""
_RESERVED = [IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"), IPv4Network("168.63.129.16/32")]
"""RFC 6890, RFC 7526, and Azure's metadata, which are no hosts of the public's whatever the list of this Python says."""


@dataclass(frozen=True)
class Allowed:
    """What may be asked besides public hosts by https."""

    hosts: tuple[str, ...] = ()
    """As ``allow_hosts`` has them."""

    def __post_init__(self) -> None:
        for host in self.hosts:
            if not host.strip() or "://" in host or ("/" in host and _network(host) is None):
                raise UsageError(
                    f"images.allow_hosts: {host!r} is not a host, host:port, address or network such as 10.0.0.0/8"
                )

    def lists(self, host: str, port: int) -> bool:
        """Whether it is listed by its name, or by the address that the name is."""
        names = {name.lower().rstrip(".") for name in self.hosts}
        plain = host.lower().rstrip(".")
        shown = f"[{plain}]" if ":" in plain else plain
        literal = _literal(plain)
        return plain in names or f"{shown}:{port}" in names or (literal is not None and self._lists(literal))

    def refusal(self, host: str, port: int, address: str) -> str | None:
        """Why this address, which the host's name leads to, is not connected to; None where it is."""
        literal = _literal(address)
        if self.lists(host, port) or (literal is not None and self._lists(literal)):
            return None
        if literal is None or not all(map(_public, _meant(literal))):
            leads = "" if host == address else f" leads to {address}, which"
            return f"{host}{leads} is on the local or a private network; list it in images.allow_hosts if it is meant"
        return None

    def _lists(self, address: Address) -> bool:
        networks = [network for host in self.hosts if (network := _network(host)) is not None]
        return any(meant in network for meant in (address, *_meant(address)) for network in networks)


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that a name leads to. Raises OSError (``socket.gaierror``)."""
    return list(dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def _literal(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _meant(address: Address) -> Iterator[Address]:
    """The address, or those of IPv4 that one of IPv6 carries."""
    if isinstance(address, IPv4Address):
        yield address
        return
    number = int(address)
    carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or number < 1 << 32:
        carried.append(IPv4Address(number & 0xFFFFFFFF))
    inner = [old for old in carried if old is not None]
    yield from inner or [address]


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        return address.is_global and address in _UNICAST
    return address.is_global and not address.is_multicast and not any(address in network for network in _RESERVED)
