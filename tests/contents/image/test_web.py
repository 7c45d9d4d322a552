"""Files over real HTTP, on hosts of this machine that do what hosts on the network do."""

import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given, settings, strategies as st

from tasks.base.errors import TransientError
from tasks.contents.image.addresses import Allowed, resolve
from tasks.contents.image.patience import Patience
from tasks.contents.image.site import Site, climbs
from tasks.contents.image.web import HOPS, Web
from tasks.embedders.interface import RowError
from tests.contents.image.pictures import picture, wait_until
from tests.helpers.image_host import (
    ImageHost,
    cut_off,
    dripping_head,
    elsewhere,
    endless,
    file,
    image_host,
    raw,
    silent,
    status,
)
from tests.helpers.servers import free_port

PICTURE = picture(1)
PAGE = b"<!doctype html><title>Sign in</title>"


@pytest.fixture(scope="module")
def hosts() -> Iterator[ImageHost]:
    with image_host() as running:
        yield running


@pytest.fixture
def host(hosts: ImageHost) -> ImageHost:
    hosts.answers.clear()
    hosts.asked.clear()
    hosts.headers.clear()
    return hosts


@pytest.fixture
def web() -> Iterator[Web]:
    """Which may ask this machine by its name localhost, and by no other."""
    opened = make()
    yield opened
    opened.close()


def make(
    max_bytes: int = 10_000, seconds: float = 30.0, silence: float = 5.0, tries: int = 3, **options: object
) -> Web:
    return Web(
        Allowed(("localhost",)), max_bytes, 8, Patience(tries, 0.001), seconds=seconds, silence=silence, **options
    )  # type: ignore[arg-type]


def get(web: Web, url: str) -> bytes | RowError:
    """By the host's listed name."""
    return web.get("'a.jpg'", httpx.URL(url.replace("127.0.0.1", "localhost", 1)))


def kind(result: bytes | RowError) -> str:
    assert isinstance(result, RowError), result
    assert "'a.jpg'" in result.message
    return result.kind


def test_a_picture_comes_as_it_is(host: ImageHost, web: Web) -> None:
    """Whatever its type is called, and after redirects within what is allowed; nothing is asked for in a compressed form."""
    assert get(web, host.put("/a.jpg", PICTURE)) == PICTURE
    assert host.headers[0]["accept-encoding"] == "identity"
    assert host.headers[0]["host"] == f"localhost:{host.port}"
    assert get(web, host.put("/b.jpg", file(PICTURE, "text/html"))) == PICTURE
    host.put("/c.jpg", elsewhere("d.jpg", 301))
    host.put("/d.jpg", elsewhere(f"http://localhost:{host.port}/a.jpg", 308))
    assert get(web, f"{host.root}/c.jpg") == PICTURE


def test_statuses_are_classes(host: ImageHost, web: Web) -> None:
    """Each is the row's own, and asked for once."""
    classes = {
        404: "missing",
        410: "missing",
        403: "denied",
        401: "denied",
        451: "denied",
        400: "refused",
        204: "refused",
    }
    for number, expected in classes.items():
        assert kind(get(web, host.put(f"/{number}", status(number)))) == expected
    assert len(host.asked) == len(classes)


def test_a_page_in_place_of_a_picture_is_told(host: ImageHost, web: Web) -> None:
    """Status 200, and HTML."""
    result = get(web, host.put("/a", file(PAGE, "text/html; charset=utf-8")))
    assert kind(result) == "page"
    assert "says 200 with a web page (text/html; charset=utf-8)" in str(result)


def test_what_may_pass_is_tried_again(host: ImageHost) -> None:
    """429, 5xx, 408, a connection that is reset, half a picture, silence; then the picture."""
    for trouble in (status(429), status(500), status(503), status(408), cut_off(PICTURE[:20]), silent(0.6)):
        assert get(make(silence=0.3), host.put("/a", trouble, file(PICTURE))) == PICTURE


def test_what_does_not_pass_is_transient(host: ImageHost, web: Web) -> None:
    """After as many tries as there are, and it says which."""
    with pytest.raises(TransientError, match=r"'a.jpg': localhost says 500; tried 3 times"):
        get(web, host.put("/a", status(500)))
    assert len(host.asked) == 3
    with pytest.raises(TransientError, match=r"no answer within 0.3 s"):
        get(make(silence=0.3), host.put("/b", silent(1)))
    with pytest.raises(TransientError, match="localhost"):
        get(web, f"http://127.0.0.1:{free_port()}/refused")


def test_a_host_that_asks_for_time_gets_it(host: ImageHost, web: Web) -> None:
    """From all who would ask it; who asks for more than a minute is left to the retries of the task."""
    url = host.put("/a", status(429, retry_after="1"), file(PICTURE))
    began = time.monotonic()
    assert get(web, url) == PICTURE
    assert 1 <= time.monotonic() - began < 8
    host.put("/b", status(503, retry_after="1"), file(PICTURE))
    host.put("/c", file(PICTURE))
    thread = threading.Thread(target=get, args=(web, f"{host.root}/b"))
    thread.start()
    wait_until(lambda: web._pauses["localhost"] > time.monotonic())
    began = time.monotonic()
    assert get(web, f"{host.root}/c") == PICTURE
    assert time.monotonic() - began > 0.5, "the other thread's answer is for this one too"
    thread.join()
    with pytest.raises(TransientError, match=r"says 429, and asks to wait 3600 s; tried 1 time"):
        get(web, host.put("/d", status(429, retry_after="3600")))


def test_whoever_stops_does_not_wait(host: ImageHost) -> None:
    """A thread that waits for its next try is told."""
    web, errors = make(), list[Exception]()
    host.put("/a", status(503, retry_after="50"))

    def read() -> None:
        try:
            get(web, f"{host.root}/a")
        except TransientError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not host.asked:
        time.sleep(0.01)
    web.stop()
    thread.join(5)
    assert len(errors) == 1
    web.close()


def test_what_never_ends_is_ended(host: ImageHost, web: Web) -> None:
    """By its size where it comes fast, with or without a length; by the clock where it comes by drops, headers too."""
    assert kind(get(web, host.put("/a", endless(bytes(1000))))) == "too_large"
    assert kind(get(web, host.put("/b", file(bytes(10_001))))) == "too_large"
    assert get(web, host.put("/c", file(bytes(10_000)))) == bytes(10_000)
    slow = make(seconds=0.5)
    began = time.monotonic()
    assert kind(get(slow, host.put("/d", endless(b"x", 0.02)))) == "too_slow"
    assert kind(get(slow, host.put("/e", dripping_head(0.02)))) == "too_slow"
    assert time.monotonic() - began < 10
    assert host.asked.count("/d") <= 1 >= host.asked.count("/e"), "not again"
    slow.close()


def test_an_error_may_have_an_endless_page(host: ImageHost, web: Web) -> None:
    """Of an answer that is no picture only the beginning is read."""

    def answer(handler: object) -> None:
        handler.send_response(404)  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        handler.close_connection = True  # type: ignore[attr-defined]
        for _ in range(200):
            handler.wfile.write(bytes(100_000))  # type: ignore[attr-defined]

    assert kind(get(make(max_bytes=1 << 30), host.put("/a", answer))) == "missing"


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/secret",
        "https://[::ffff:127.0.0.1]:{port}/secret",
        "http://2130706433:{port}/secret",
        "http://0x7f.1:{port}/secret",
        "http://localhost:{port}@127.0.0.1:{port}/secret",
        "http://user@localhost:{port}/secret",
        "https://10.0.0.1/",
        "//127.0.0.1:{port}/secret",
        "file:///etc/passwd",
        "ftp://localhost/secret",
        "gopher://localhost:{port}/_x",
        "https://1.1.1.1:22/",
        "http://1.1.1.1/",
        "https://localhost:99999/",
    ],
)
def test_a_redirect_leads_to_nothing_that_is_forbidden(host: ImageHost, web: Web, target: str) -> None:
    """Not to this machine by another name, not to metadata, not by another scheme, port or user; nothing is asked there."""
    host.put("/secret", PICTURE)
    assert kind(get(web, host.put("/a", elsewhere(target.format(port=host.port))))) == "forbidden"
    assert host.asked == ["/a"]


def test_a_first_address_is_judged_as_any_other(host: ImageHost) -> None:
    """Nothing is asked of this machine where it is not listed."""
    web = Web(Allowed(), 1000, 4, Patience(2, 0.001))
    host.put("/a", PICTURE)
    for url in (
        f"http://localhost:{host.port}/a",
        f"https://localhost:{host.port}/a",
        "https://localhost/a",
        "https://127.1/a",
    ):
        assert kind(web.get("'a.jpg'", httpx.URL(url))) == "forbidden"
    assert host.asked == []


def test_the_address_that_was_judged_is_the_one_asked(host: ImageHost) -> None:
    """A name that leads to a public address the first time and to this machine the second (DNS rebinding) is resolved once; of
    several addresses those within are left out."""
    answers = [["203.0.113.1", "127.0.0.1"], ["127.0.0.1"]]
    asked = list[str]()

    def rebinding(name: str, port: int) -> list[str]:
        asked.append(name)
        return answers[min(len(asked) - 1, 1)]

    host.put("/a", PICTURE)
    web = Web(Allowed(), 1000, 4, Patience(1, 0.001), resolver=rebinding)
    result = web.get("'a.jpg'", httpx.URL("https://rebinding.example/a"))
    assert kind(result) == "forbidden"
    assert asked == ["rebinding.example"]

    mixed = Web(
        Allowed(("198.51.100.7/32",)),
        1000,
        4,
        Patience(1, 0.001),
        resolver=lambda name, port: ["127.0.0.1", "10.0.0.1"],
    )
    assert "mixed.example leads to 127.0.0.1" in str(mixed.get("'a.jpg'", httpx.URL("https://mixed.example/a")))
    assert host.asked == []


def test_a_connection_is_kept_for_the_name_it_was_made_for(host: ImageHost, web: Web) -> None:
    """Asked again by a name that is not listed, at the same address, it is not used."""
    url = host.put("/a", PICTURE)
    assert get(web, url) == PICTURE
    assert kind(web.get("'a.jpg'", httpx.URL(url))) == "forbidden"
    assert len(host.asked) == 1


def test_redirects_have_an_end(host: ImageHost, web: Web) -> None:
    """A loop is left after a few hops; a redirect without a target is none."""
    assert kind(get(web, host.put("/a", elsewhere("/a")))) == "refused"
    assert len(host.asked) == HOPS + 1
    assert kind(get(web, host.put("/b", status(302)))) == "refused"


def test_what_is_no_http_is_the_rows_own(host: ImageHost, web: Web) -> None:
    """Another protocol, headers without an end, a redirect to a name that no resolver takes; neither is asked for twice."""
    for answer in (raw(b"220 ftp.example ready\r\n\r\n"), raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000)):
        assert kind(get(web, host.put("/a", answer))) == "refused"
    assert kind(get(web, host.put("/b", elsewhere(f"https://{'x' * 70}.example/")))) in ("forbidden", "missing")
    assert len(host.asked) == 3


def test_keys_are_sent_to_the_host_they_are_for(host: ImageHost) -> None:
    """And not to where it redirects to."""
    with image_host() as other:
        other.put("/b", PICTURE)
        host.put("/a", elsewhere(f"http://localhost:{other.port}/b"))
        web = make(headers={"apikey": "secret"})
        assert get(web, f"{host.root}/a") == PICTURE
        assert host.headers[0]["apikey"] == "secret"
        assert "apikey" not in other.headers[0]
        assert "secret" not in repr(web)
        web.close()


def test_a_name_that_leads_nowhere_is_missing(web: Web) -> None:
    """Where the resolver knows that there is no such host; where it does not answer, that may pass."""

    def failing(number: int) -> object:
        def fail(name: str, port: int) -> list[str]:
            raise socket.gaierror(number, "resolver's words")

        return fail

    nowhere = make(resolver=failing(socket.EAI_NONAME))
    assert kind(nowhere.get("'a.jpg'", httpx.URL("https://gone.example/a"))) == "missing"
    with pytest.raises(TransientError, match="resolver's words"):
        make(resolver=failing(socket.EAI_AGAIN)).get("'a.jpg'", httpx.URL("https://gone.example/a"))
    assert resolve("localhost", 80)


@pytest.mark.parametrize(
    ("root", "reference", "url"),
    [
        ("https://h.example/p", "a.jpg", "https://h.example/p/a.jpg"),
        ("https://h.example/p/", "x/a b#1.jpg", "https://h.example/p/x/a%20b%231.jpg"),
        ("https://h.example/p/", "a%20b.jpg?size=1&x=../..", "https://h.example/p/a%20b.jpg?size=1&x=../.."),
        ("https://h.example/p/", "https://H.example:443/p/a.jpg", "https://h.example/p/a.jpg"),
        ("https://h.example/p/", "/p/a.jpg", "https://h.example/p/a.jpg"),
        ("https://h.example/p/", "10:30.jpg", "https://h.example/p/10:30.jpg"),
        ("https://h.example/p/", "ü.jpg", "https://h.example/p/%C3%BC.jpg"),
        ("https://h.example", "/a.jpg", "https://h.example/a.jpg"),
        ("https://", "https://any.example/a.jpg", "https://any.example/a.jpg"),
    ],
)
def test_a_reference_is_a_url_or_what_follows_the_root(root: str, reference: str, url: str) -> None:
    """Spaces and letters are encoded, what is encoded already is left."""
    assert Site(root, make()).located(reference) == httpx.URL(url)


@pytest.mark.parametrize(
    "reference",
    [
        "../a.jpg",
        "x/../../a.jpg",
        "%2e%2e/a.jpg",
        "%252e%252e/a.jpg",
        "..%2fa.jpg",
        "..\\a.jpg",
        "%2e%2e%5ca.jpg",
        "/a.jpg",
        "/px/a.jpg",
        "//evil.example/p/a.jpg",
        "https://evil.example/p/a.jpg",
        "https://h.example.evil.example/p/a.jpg",
        "https://h.example:8443/p/a.jpg",
        "http://h.example/p/a.jpg",
        "https://h.example@evil.example/p/a.jpg",
        "https://user:word@h.example/p/a.jpg",
        "https://h.example/p/../a.jpg",
        "https://h.example/other/a.jpg",
        "ftp://h.example/p/a.jpg",
    ],
)
def test_a_reference_that_leads_out_of_the_root_is_refused(reference: str) -> None:
    """To another host, port, scheme or user, or to another folder, however its dots are written."""
    result = Site("https://h.example/p/", make()).located(reference)
    assert isinstance(result, RowError)
    assert result.kind == "escapes"
    assert climbs("a/./b")
    assert not climbs("a.b/..c/...")


PARTS = ["..", ".", "", "p", "a.jpg", "%2e%2e", "%2F", "%5c", "\\", "@", ":", "?", "#", "//", "https:", "http:", "h.example",
         "evil.example", "127.0.0.1", "[::1]", ":8443", "\t", "\r\n", " ", "ü", "%"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PARTS), min_size=1).map("/".join)
    | st.lists(st.sampled_from(PARTS)).map("".join)
    | st.text()
)
def test_no_reference_makes_a_url_outside_of_the_root(reference: str) -> None:
    """Whatever it is put together from: the host, the port, the scheme and the folder are the root's, and no key is sent along."""
    result = Site("https://h.example/p/", make()).located(reference or "x")
    if isinstance(result, RowError):
        assert result.kind in ("escapes", "reference")
    else:
        assert (result.scheme, result.host, result.port, result.userinfo) == ("https", "h.example", None, b"")
        assert unquote(unquote(result.raw_path.decode())).startswith("/p/")
        assert not climbs(result.raw_path.decode())


def test_what_is_no_url_is_told() -> None:
    """Under a root that names no host a reference must do so; control characters make no URL."""
    for root, reference in (
        ("https://", "a.jpg"),
        ("https://h.example/", "a\x07.jpg"),
        ("https://", "https://[::1/a.jpg"),
    ):
        result = Site(root, make()).located(reference)
        assert isinstance(result, RowError)
        assert result.kind == "reference"
