"""Which addresses may be asked for pictures."""

import pytest
from hypothesis import given, strategies as st

from tasks.base.errors import UsageError
from tasks.contents.image.addresses import Allowed, resolve

# fmt: off
PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "168.63.129.16", "198.18.0.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2001:0:7f00:1::1", "2001:db8::1", "fe80::1", "fe80::1%1", "fec0::1", "fc00::1",
    "fd00:ec2::254", "ff02::1",
]
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2606:4700:4700::1111",
    "::ffff:8.8.8.8", "64:ff9b::808:808",
]
# fmt: on


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_within_is_asked(address: str) -> None:
    """Of this machine, of private networks, of links, of metadata; also where an address of IPv6 carries it."""
    assert "images.allow_hosts" in (Allowed().refusal("a.example", 443, address) or "")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_asked(address: str) -> None:
    """Also the neighbours of private networks."""
    assert Allowed().refusal("a.example", 443, address) is None


@given(st.ip_addresses(v=4))
def test_an_address_in_another_dress_is_judged_alike(address: object) -> None:
    """Mapped, translated, or by 6to4 (RFC 4291, 6052, 3056)."""
    number = int(address)  # type: ignore[call-overload]
    high, low = number >> 16, number & 0xFFFF
    plain = Allowed().refusal("a", 443, str(address)) is None
    for dress in (f"::ffff:{address}", f"64:ff9b::{high:x}:{low:x}", f"2002:{high:x}:{low:x}::1"):
        assert (Allowed().refusal("a", 443, dress) is None) == plain, dress


@pytest.mark.parametrize(
    ("listed", "host", "port", "address", "allowed"),
    [
        ("minio", "minio", 9000, "10.0.0.7", True),
        ("MinIO.", "minio", 9000, "10.0.0.7", True),
        ("minio:9000", "minio", 9000, "10.0.0.7", True),
        ("minio:9000", "minio", 9001, "10.0.0.7", False),
        ("minio", "minio.evil.example", 443, "10.0.0.7", False),
        ("10.0.0.7", "a.example", 443, "10.0.0.7", True),
        ("10.0.0.0/8", "a.example", 443, "10.9.9.9", True),
        ("10.0.0.0/8", "a.example", 443, "::ffff:10.9.9.9", True),
        ("10.0.0.0/8", "a.example", 443, "127.0.0.1", False),
        ("[::1]:8080", "::1", 8080, "::1", True),
        ("::1", "::1", 8080, "::1", True),
        ("fd00::/8", "a.example", 443, "fd00::5", True),
        ("127.0.0.1:80", "127.0.0.1", 81, "127.0.0.1", False),
    ],
)
def test_what_is_listed_is_asked(listed: str, host: str, port: int, address: str, allowed: bool) -> None:
    """By its name, with a port or any, by its address, or by the network that it is in."""
    assert (Allowed((listed,)).refusal(host, port, address) is None) == allowed


@pytest.mark.parametrize("listed", ["", " ", "https://minio", "minio/photos", "10.0.0.0/99"])
def test_what_lists_no_host_is_refused(listed: str) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError, match="allow_hosts"):
        Allowed((listed,))


@pytest.mark.parametrize("name", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost"])
def test_other_ways_to_write_an_address_lead_to_it(name: str) -> None:
    """What is judged is what the resolver makes of a name."""
    addresses = resolve(name, 443)
    assert addresses
    assert all(Allowed().refusal(name, 443, address) for address in addresses)
