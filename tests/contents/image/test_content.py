"""A page of documents becomes items in slices, and what has none is told by its class."""

import hashlib
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.begin import begin
from tasks.contents import registry
from tasks.contents.image import content as module
from tasks.contents.image.content import Image
from tasks.contents.interface import Slice
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, RowError, Space
from tasks.embedders.pictures import cropped, decode
from tasks.runs.plan import from_json
from tasks.runs.run import open_run
from tasks.runs.spending import Purse
from tasks.runs.vectors import embedded, keyed
from tasks.stores.postgres.connection import Connection
from tests.contents.image.pictures import photograph, picture, wait_until
from tests.helpers.image_host import ImageHost, cut_off, elsewhere, file, image_host, late, silent, status
from tests.helpers.live_table import Table


@pytest.fixture
def host() -> Iterator[ImageHost]:
    with image_host() as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def hashed(items: Sequence[Item]) -> list[bytes]:
    return [hashlib.sha256(bytes(item)).digest() for item in items]  # type: ignore[arg-type]


def crop(image: str, *box: float) -> str:
    return json.dumps({"image": image, "crop": box})


def taken(content: Image, documents: Sequence[str]) -> dict[int, bytes | str]:
    """The item of each row, or the class that it is refused with; each in one slice."""
    result: dict[int, bytes | str] = {}
    for part in content.slices(documents, hashed):
        items = list(part.open(range(len(part.rows))))
        assert hashed(items) == list(part.keys)  # type: ignore[arg-type]
        for row, item in [*zip(part.rows, items, strict=True), *part.refused.items()]:
            assert row not in result
            result[row] = item.kind if isinstance(item, RowError) else bytes(item)  # type: ignore[arg-type]
    assert set(result) == set(range(len(documents)))
    return result


def test_it_is_a_content_that_a_plan_keeps() -> None:
    """As JSON, with every option; what a later version adds gets its default."""
    content = Image("https://h.example/", allow_hosts=("10.0.0.0/8", "minio"), max_bytes=5, concurrency=3)
    stored = json.loads(json.dumps(registry.encode(content)))
    assert stored["kind"] == "image"
    assert registry.decode(stored) == content
    assert registry.decode({"kind": "image", "root": "/photos"}) == Image("/photos")
    assert content.gives == "image"


def test_options_that_name_no_place_are_refused() -> None:
    """Before anything is read."""
    wrong = [
        Image(),
        Image("/a", database="X"),
        Image(database="X", table="t"),
        Image("https://h.example", allow_hosts=("",)),
    ]
    for content in wrong:
        with pytest.raises(UsageError, match="images"):
            list(content.slices(["a.jpg"], hashed))


def test_pictures_and_their_parts_become_items(root: Path) -> None:
    """In pixels or fractions of the picture as it is seen; all of it is the picture itself; equal items have equal keys."""
    (root / "a.png").write_bytes(picture(1, (20, 10)))
    (root / "twin.png").write_bytes(picture(1, (20, 10)))
    whole = picture(1, (20, 10))
    documents = [
        "a.png",
        "twin.png",
        crop("a.png", 2, 3, 10, 5),
        crop("twin.png", 0.1, 0.3, 0.5, 0.5),
        crop("a.png", 0, 0, 20, 10),
        json.dumps({"image": "a.png", "version": 2}),
        crop("a.png", 2, 3, 19, 5),
    ]
    part = cropped(whole, (2, 3, 12, 8))
    assert taken(Image(str(root)), documents) == {
        0: whole,
        1: whole,
        2: part,
        3: part,
        4: whole,
        5: whole,
        6: "outside",
    }
    assert decode(part).size == (10, 5)  # type: ignore[union-attr]


def test_a_directory_may_be_written_as_a_url(root: Path) -> None:
    """And is one: links do not lead out of it."""
    (root / "a").write_bytes(picture(1))
    (root / "out").symlink_to("/etc/passwd")
    documents = ["a", f"file://{root}/a", "out", "file:///etc/passwd"]
    assert list(taken(Image(f"file://{root}"), documents).values()) == [picture(1), picture(1), "escapes", "escapes"]


def test_each_fault_is_the_rows_own_and_has_its_class(host: ImageHost, tmp_path: Path) -> None:
    """The others have their items, and each message has the reference."""
    good = photograph(5)
    host.put("/good.jpg", good)
    host.put("/cut.jpg", good[:-30])
    host.put("/text.jpg", b"a text file")
    host.put("/none.jpg", b"")
    host.put("/saved.jpg", b" <html><body>Not here</body>")
    host.put("/page.jpg", file(b"<p>Sign in", "text/html"))
    host.put("/large.jpg", bytes(20_001))
    host.put("/wide.png", picture(1, (2000, 20)))
    host.put("/no.jpg", status(403))
    host.put("/inner.jpg", elsewhere("http://169.254.169.254/latest"))
    documents = {
        "good.jpg": good,
        "cut.jpg": good[:-30],
        "text.jpg": "not_an_image",
        "none.jpg": "empty",
        "saved.jpg": "page",
        "page.jpg": "page",
        "large.jpg": "too_large",
        "wide.png": "too_many_pixels",
        "no.jpg": "denied",
        "gone.jpg": "missing",
        "inner.jpg": "forbidden",
        "../secret.jpg": "escapes",
        "https://elsewhere.example/a.jpg": "escapes",
        "{": "reference",
        crop("good.jpg", 30, 0, 20, 10): "outside",
    }
    content = Image(host.root, allow_hosts=("127.0.0.1",), max_bytes=20_000, max_pixels=30_000)
    assert taken(content, list(documents)) == dict(enumerate(documents.values()))
    for part in content.slices(list(documents), hashed):
        for row, error in part.refused.items():
            name = list(documents)[row]
            assert (json.loads(name)["image"] if name.startswith('{"') else name) in error.message


def test_a_picture_is_read_once_a_page(host: ImageHost) -> None:
    """However many crops of it there are, and several at once."""
    for number in range(30):
        host.put(f"/{number}.png", late(0.01, file(picture(number, (20, 10)))))
    documents = [crop(f"{number}.png", 0, 0, 5 + size, 5) for size in range(4) for number in range(30)]
    documents += ["gone.png", "gone.png"]
    result = taken(Image(host.root, allow_hosts=("127.0.0.1",), concurrency=4), documents)
    assert list(result.values()).count("missing") == 2
    assert sorted(host.asked) == sorted([f"/{number}.png" for number in range(30)] + ["/gone.png"])
    assert 2 <= host.most <= 4


def test_slices_are_bounded_by_bytes_and_reading_goes_on_ahead_of_them(
    host: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the model is at one, the next is read, and no further."""
    one = len(picture(1))
    monkeypatch.setattr(module, "SLICE", 4 * one)
    monkeypatch.setattr(module, "AHEAD", 6 * one)
    for number in range(60):
        host.put(f"/{number}.png", picture(number))
    content = Image(host.root, allow_hosts=("127.0.0.1",), concurrency=3)
    rows, before = 0, 0
    for part in content.slices([f"{number}.png" for number in range(60)], hashed):
        assert len(part.rows) == 4
        rows += len(part.rows)
        wait_until(lambda rows=rows: len(host.asked) > min(rows, 59))  # type: ignore[misc]
        time.sleep(0.03)
        assert len(host.asked) <= rows + 6 + 3
        assert len(host.asked) >= before
        before = len(host.asked)
    assert rows == 60


def test_memory_does_not_grow_with_the_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice, what is read ahead, and what the threads are at."""
    monkeypatch.setattr(module, "SLICE", 1 << 22)
    monkeypatch.setattr(module, "AHEAD", 1 << 22)
    for number in range(200):
        (root / f"{number}.png").write_bytes(picture(number) + bytes(200_000))
    content = Image(str(root), concurrency=2)
    taken(content, ["0.png"])  # what Pillow imports stays
    tracemalloc.start()
    for part in content.slices([f"{number}.png" for number in range(200)], hashed):
        assert list(part.open(range(len(part.rows))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9 << 20, "of 40 MB"


def test_known_pictures_are_cut_by_their_sizes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No slice could have more open than its bytes; what is not asked for is not read."""
    monkeypatch.setattr(module, "SLICE", 1000)
    documents = []
    for number in range(20):
        (root / f"{number}.png").write_bytes(picture(number))
        digest = hashlib.sha256(picture(number)).hexdigest()
        documents.append(json.dumps({"image": f"{number}.png", "sha256": digest, "bytes": len(picture(number))}))
    (root / "0.png").unlink()
    parts = Image(str(root)).slices(documents, hashed)
    sizes = []
    for part in parts:
        sizes.append(len(part.rows))
        opened = list(part.open([len(part.rows) - 1]))
        assert hashed(opened) == [part.keys[-1]]  # type: ignore[arg-type]
    assert sum(sizes) == 20
    assert max(sizes) * len(picture(0)) <= 1000


def test_an_error_that_is_no_rows_own_ends_the_page_at_once(host: ImageHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in the other threads is not waited for, and the error that is raised is the one that was first."""
    monkeypatch.setenv("KEY", "eyJ.x.y")
    door = "/storage/v1/object/authenticated/b"
    refused = threading.Event()

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        refused.set()
        status(401)(handler)

    def put_off(handler: BaseHTTPRequestHandler) -> None:
        refused.wait(10)  # who is put off first has all who ask this host wait
        status(503, retry_after="40")(handler)

    host.put(f"{door}/slow", put_off)
    host.put(f"{door}/bad", refuse)
    content = Image(host.root, "b", "KEY", allow_hosts=("127.0.0.1",))
    began = time.monotonic()
    with pytest.raises(FatalError, match=r"images.service_key: KEY is not accepted"):
        list(content.slices(["slow", "slow2", "bad", "bad2"], hashed))
    assert time.monotonic() - began < 20
    plain = Image(host.root, allow_hosts=("127.0.0.1",))
    host.put("/late", status(503, retry_after="400"))
    with pytest.raises(TransientError, match=r"'late': 127.0.0.1 says 503, and asks to wait 400 s"):
        list(plain.slices(["late"], hashed))
    with pytest.raises(FatalError, match="there is no directory /gone"):
        list(Image("/gone").slices(["a", "b"], hashed))


def test_who_stops_early_leaves_nothing_behind(host: ImageHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a thread nor one that waits."""
    monkeypatch.setattr(module, "SLICE", 1)
    host.put("/a", picture(1))
    host.put("/b", status(503, retry_after="40"))
    before = {thread for thread in threading.enumerate() if thread.name.startswith("ahead")}
    parts = Image(host.root, allow_hosts=("127.0.0.1",)).slices(["a", "b", "c"], hashed)
    next(parts)
    began = time.monotonic()
    parts.close()
    assert time.monotonic() - began < 20
    assert {thread for thread in threading.enumerate() if thread.name.startswith("ahead")} == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(max_size=20)
        | st.sampled_from(
            ["a.png", "../a.png", "/etc/passwd", "https://127.0.0.1/a", "file:///etc/passwd", "x/../../root/a.png"]
        )
        | st.builds(crop, st.sampled_from(["a.png", "b"]), *[st.integers(-2, 12) | st.floats(-0.5, 1.5)] * 4),
        max_size=8,
    )
)
def test_no_document_is_an_error_of_ours(root: Path, documents: list[str]) -> None:
    """Whatever a table says, each row has an item of this root or a class."""
    (root / "a.png").write_bytes(picture(1))
    for item in taken(Image(str(root)), documents).values():
        assert isinstance(item, str) or item.endswith(picture(1))


class Mean:
    """A model of pictures: a vector is the mean colour."""

    takes: ClassVar[frozenset[Kind]] = frozenset({"image"})
    account: ClassVar[None] = None

    def __init__(self) -> None:
        self.asked: list[Item] = []

    @cached_property
    def space(self) -> Space:
        return Space("tests", "mean", 3)

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        self.asked += items
        vectors, rejected = np.zeros((len(items), 3), np.float32), {}
        for row, item in enumerate(items):
            image = decode(bytes(item))  # type: ignore[arg-type]
            if isinstance(image, RowError):
                rejected[row] = image
            else:
                vectors[row] = np.asarray(image).mean((0, 1))
        good = [row for row in range(len(items)) if row not in rejected]
        if on_made and good:
            on_made(good, vectors[good])
        return Embedded(vectors, rejected)


def test_a_page_of_pictures_becomes_vectors(
    connection: Connection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run: equal pictures are embedded once, what is kept is not made again, and what has no vector is told by its row."""
    Table(connection, rows=1)
    form = parse(Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/8"})
    begin(form.request(), "pictures", form.given())
    opened, model = open_run("pictures", DEFAULT_DATABASE), Mean()
    target = replace(opened.plan.targets[0], content=Image(str(root)))
    request = replace(opened.plan.request, embedder="tests/mean")
    run = replace(opened, plan=from_json(replace(opened.plan, targets=(target,), request=request).as_json()))
    run.own(Purse, lambda: Purse(run)).models["tests/mean"] = model
    monkeypatch.setattr(module, "SLICE", 300)
    for name, data in {"a": picture(3), "twin": picture(3), "b": photograph(9), "cut": photograph(9)[:-40]}.items():
        (root / name).write_bytes(data)
    documents = ["a", None, "b", crop("b", 0, 0, 0.5, 0.5), "cut", "gone", "twin", "../root/a", "../x"]
    page = pa.table({"id": [str(n) for n in range(9)], "document": pa.array(documents, pa.string())})

    result, refused = embedded(run, run.plan.targets[0], page)
    assert {row: error.kind for row, error in refused.items()} == {4: "truncated", 5: "missing", 8: "escapes"}
    vectors = result.column("embedding").to_pylist()
    assert vectors[0] == vectors[6] == vectors[7] == [3, 0, 7]
    pixels = np.asarray(decode(photograph(9)), np.float32)
    assert np.allclose(vectors[2], pixels.mean((0, 1)), atol=0.01)
    assert np.allclose(vectors[3], pixels[:15, :20].mean((0, 1)), atol=0.01)
    assert [vectors[row] for row in (1, 4, 5, 8)] == [None] * 4
    assert len(model.asked) == 4, "a, b, a part of b, and the one that is cut off"
    made = len(model.asked)
    second, _ = embedded(run, run.plan.targets[0], page)
    assert second.column("embedding") == result.column("embedding")
    assert len(model.asked) == made + 1, "the one without a vector"
    whole = picture(3)
    assert keyed(model, [whole])[0] == [hashlib.sha256(whole).digest()]  # type: ignore[arg-type]


def test_a_slow_host_holds_up_no_other_row(host: ImageHost) -> None:
    """It is tried again; the rest of the page is read meanwhile."""
    host.put("/slow", silent(0.5), file(picture(1)))
    host.put("/half", cut_off(picture(2)[:10]), file(picture(2)))
    for number in range(20):
        host.put(f"/{number}", picture(number))
    content = Image(host.root, allow_hosts=("127.0.0.1",), concurrency=4)
    began = time.monotonic()
    parts: list[Slice] = list(content.slices(["slow", "half", *map(str, range(20))], hashed))
    assert sum(len(part.rows) for part in parts) == 22
    assert time.monotonic() - began < 20
