"""One picture that is never to be had, on a host that gives the others; over real HTTP."""

import time
from collections.abc import Iterator

import pytest

from tasks.base.errors import TransientError
from tasks.contents.image.addresses import Allowed
from tasks.contents.image.opening import Opening, Picture
from tasks.contents.image.patience import Patience
from tasks.contents.image.site import ANYWHERE, Site
from tasks.contents.image.web import Web
from tasks.embedders.interface import RowError
from tests.contents.image.pictures import picture
from tests.helpers.image_host import Answer, ImageHost, cut_off, file, image_host, silent, status
from tests.helpers.servers import free_port

GOOD = picture(1)


@pytest.fixture
def host() -> Iterator[ImageHost]:
    with image_host() as running:
        for number in range(20):
            running.put(f"/{number}.png", GOOD)
        yield running


def pictures(references: list[str], root: str = ANYWHERE, concurrency: int = 4, outage: float = 0.5) -> dict[str, str]:
    """By reference, the class that each is refused with; "" for a picture."""
    web = Web(Allowed(("127.0.0.1", "localhost")), 10_000, 8, Patience(3, 0.001), silence=0.3)
    opening = Opening(Site(root, web), 10_000, concurrency, outage)
    try:
        with opening.pictures(references, 1 << 20) as results:
            kinds = {name: _kind(name, result) for name, result in zip(references, results, strict=True)}
    finally:
        web.close()
    return kinds


def _kind(name: str, result: Picture | RowError) -> str:
    if isinstance(result, Picture):
        return ""
    assert f"'{name}'" in result.message
    return result.kind


@pytest.mark.parametrize("trouble", [status(500), status(503, retry_after="400"), cut_off(GOOD[:9]), silent(0.5)])
@pytest.mark.parametrize("at", [0, 20])
def test_a_picture_that_is_never_to_be_had_is_its_rows_own_fault(host: ImageHost, trouble: Answer, at: int) -> None:
    """Whether it is the first of a page or the last, whatever is wrong with it: the others are read."""
    host.put("/bad.png", trouble)
    names = [f"{number}.png" for number in range(20)]
    names.insert(at, "bad.png")
    assert pictures(names, host.root) == {**dict.fromkeys(names, ""), "bad.png": "unavailable"}


def test_it_is_told_in_the_hosts_words(host: ImageHost) -> None:
    """And with what says that the host is well."""
    host.put("/bad.png", status(502))
    web = Web(Allowed(("127.0.0.1",)), 10_000, 8, Patience(3, 0.001))
    with Opening(Site(host.root, web), 10_000, 2).pictures(["bad.png", "1.png"], 1 << 20) as results:
        error, _ = results
    assert isinstance(error, RowError)
    assert error.message == "'bad.png': 127.0.0.1 says 502; tried 3 times, while 127.0.0.1 gives other images"
    assert host.asked.count("/bad.png") == 4, "once more after another was read"
    web.close()


def test_more_of_them_than_there_are_threads_hold_up_no_page(host: ImageHost) -> None:
    """No other has been read by then: some are asked for."""
    bad = [host.put(f"/bad-{number}", status(500)).rpartition("/")[2] for number in range(9)]
    names = [*bad, *(f"{number}.png" for number in range(20))]
    assert pictures(names, host.root) == {**dict.fromkeys(names, ""), **dict.fromkeys(bad, "unavailable")}


def test_a_host_that_is_down_is_no_rows_fault(host: ImageHost) -> None:
    """As long as none of its pictures is read, the batch waits for it; others may be missing there."""
    for number in range(20):
        host.put(f"/{number}.png", status(503))
    with pytest.raises(TransientError, match="says 503; tried 3 times"):
        pictures([f"{number}.png" for number in range(20)], host.root)
    with pytest.raises(TransientError, match="says 503"):
        pictures(["0.png", "gone.png"], host.root)
    with pytest.raises(TransientError, match="says 503"):
        pictures(["0.png"], host.root)


def test_a_host_that_is_dead_while_others_are_well_is_waited_for(host: ImageHost) -> None:
    """For so long and no longer: then its pictures are not to be had, each is told with why, and it is not asked for each again."""
    for number in range(100):
        host.put(f"/{number}.png", status(503))
    names = [f"{host.root}/{number}.png" for number in range(100)]
    with image_host() as other:
        well = [other.put(f"/{n}.png", GOOD).replace("127.0.0.1", "localhost") for n in range(3)]
        began = time.monotonic()
        kinds = pictures([names[0], *well, *names[1:]])
        assert kinds == {**dict.fromkeys(names, "unavailable"), **dict.fromkeys(well, "")}
        assert 0.5 <= time.monotonic() - began < 10
        assert len(set(host.asked)) < 100
        for name in well:
            other.put(f"/{name.rpartition('/')[2]}", status(500))
        with pytest.raises(TransientError, match="says 50"):
            pictures([names[0], *well, *names[1:]])


def test_a_host_that_is_back_before_that_gives_its_pictures(host: ImageHost) -> None:
    """None of its rows is set aside."""
    for number in range(3):
        host.put(f"/{number}.png", *[status(503)] * 9, file(GOOD))
    names = [f"{host.root}/{number}.png" for number in range(3)]
    with image_host() as other:
        well = other.put("/a.png", GOOD).replace("127.0.0.1", "localhost")
        assert pictures([*names, well], outage=5) == dict.fromkeys([*names, well], "")


def test_the_only_picture_of_a_host_is_judged_by_other_hosts(host: ImageHost) -> None:
    """There is none of its own to tell whether it is down for good."""
    gone = f"http://localhost:{free_port()}/a.png"
    well = f"{host.root}/1.png"
    assert pictures([gone, well]) == {gone: "unavailable", well: ""}


def test_who_is_asked_too_often_is_down_for_all(host: ImageHost) -> None:
    """429 is about who asks, and not about the picture."""
    host.put("/bad.png", status(429))
    with pytest.raises(TransientError, match="says 429"):
        pictures(["1.png", "bad.png", "2.png"], host.root)


def test_a_host_that_comes_back_gives_its_picture(host: ImageHost) -> None:
    """It was down while the picture was tried, and not any more when another was read."""
    host.put("/bad.png", *[status(503)] * 3, file(GOOD))
    assert pictures(["bad.png", "1.png"], host.root) == {"bad.png": "", "1.png": ""}
