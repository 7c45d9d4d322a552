"""Images on their way through a model: in order, no more at once than the machine has cores, and nothing lost where one fails."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from tasks.embedders.interface import Embedded, RowError
from tasks.embedders.local import images, lanes
from tasks.embedders.local.lanes import Passed, cores, passed
from tests.helpers.local_models import needs_models

pytestmark = needs_models
IMAGES = [b"%d" % at for at in range(50)]


def prepare(image: bytes) -> Any:
    """The number that it stands for; multiples of ten are no images."""
    number = int(image)
    return RowError("not_an_image", "a multiple of ten") if number % 10 == 0 else number


def forward(prepared: Sequence[int]) -> np.ndarray:
    """Two numbers of each."""
    return np.array([[number, number + 0.5] for number in prepared], np.float32)


@pytest.fixture(params=[True, False], ids=["processor", "device"])
def alone(request: pytest.FixtureRequest) -> bool:
    """Both ways through a model."""
    return bool(request.param)


@pytest.mark.parametrize("batch", [1, 7, 50, 64])
def test_every_image_is_passed_once_and_in_its_order(batch: int, alone: bool) -> None:
    """At most ``batch`` at once; what is no image is told and not passed."""
    sizes: list[int] = []

    def counted(prepared: Sequence[int]) -> np.ndarray:
        sizes.append(len(prepared))
        return forward(prepared)

    done = list(passed(IMAGES, prepare, counted, batch, alone))
    rows = [row for part in done for row in part.rows]
    assert rows == [row for row in range(50) if row % 10]
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in done if part.rows]), forward(rows))
    assert sorted(row for part in done for row in part.rejected) == [0, 10, 20, 30, 40]
    assert max(sizes) <= batch
    assert list(passed([], prepare, forward, batch, alone)) == []


def test_no_more_at_once_than_there_are_cores(alone: bool) -> None:
    """Whoever embeds, and however many do: the threads that prepare are the process's."""
    at_work = most = 0
    lock = threading.Lock()

    def slow(image: bytes) -> Any:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002)
        with lock:
            at_work -= 1
        return prepare(image)

    def embed() -> None:
        list(passed(IMAGES, slow, forward, 4, alone))

    threads = [threading.Thread(target=embed) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == cores()


def test_images_are_prepared_while_the_model_works_and_not_far_ahead(alone: bool) -> None:
    """While one batch is passed the next are prepared, and where nobody takes the results it ends there."""
    prepared: list[bytes] = []
    overlapped = 0

    def note(image: bytes) -> Any:
        time.sleep(0.001)
        prepared.append(image)
        return int(image)

    def work(numbers: Sequence[int]) -> np.ndarray:
        nonlocal overlapped
        before = len(prepared)
        time.sleep(0.01)
        overlapped += len(prepared) > before
        return forward(numbers)

    way = passed([b"%d" % at for at in range(400)], note, work, 4, alone)
    for _ in range(3):
        next(way)
    time.sleep(0.1)
    assert len(prepared) <= 12 + 4 * (cores() + 2) + cores()
    way.close()
    assert len(prepared) < 100
    assert overlapped or cores() == 1


def test_where_one_fails_what_is_under_way_is_handed_out_first(alone: bool) -> None:
    """Nothing more is begun, no vector that was made is lost, and the error is raised."""
    begun: list[int] = []
    beside = threading.Event()
    several = cores() > 1 or not alone

    def fail(prepared: Sequence[int]) -> np.ndarray:
        begun.append(prepared[0])
        if 21 in prepared:
            beside.wait(2 if several else 0)
            raise ConnectionError("gone")
        if prepared[0] > 21:
            beside.set()
            time.sleep(0.05)
        return forward(prepared)

    done: list[Passed] = []

    def take() -> Iterator[Passed]:
        for part in passed(IMAGES, prepare, fail, 1, alone):
            done.append(part)
            yield part

    with pytest.raises(ConnectionError, match="gone"):
        list(take())
    rows = [row for part in done for row in part.rows]
    assert sorted(rows) == sorted(set(begun) - {21})
    assert beside.is_set() == several
    assert max(begun) < 30


def test_torch_keeps_its_threads_elsewhere() -> None:
    """A thread of the pool has one of torch's, every other thread as many as before."""
    import torch

    usual = torch.get_num_threads()
    within = [future.result() for future in [lanes._pool().submit(torch.get_num_threads) for _ in range(8)]]
    assert set(within) == {1}
    outside: list[int] = []
    thread = threading.Thread(target=lambda: outside.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *outside] == [usual, usual]


def test_vectors_that_wait_long_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number, and by the clock: of a slow model no more than some seconds' work is lost."""
    calls: list[Sequence[int]] = []

    def collected(seconds: float, count: int) -> Embedded:
        calls.clear()
        monkeypatch.setattr(images, "SECONDS", seconds)
        monkeypatch.setattr(images, "SLICE", count)
        passes = [Passed([at], forward([at + 1]), {}) for at in range(6)]
        return images.collected(6, 2, passes, False, lambda rows, vectors: calls.append(rows))

    collected(60, 4)
    assert calls == [[0, 1, 2, 3], [4, 5]]
    collected(-1, 100)
    assert calls == [[0], [1], [2], [3], [4], [5]]
    np.testing.assert_array_equal(collected(60, 100).vectors, forward(range(1, 7)))
    assert calls == [[0, 1, 2, 3, 4, 5]]


def test_a_vector_that_no_index_finds_is_refused() -> None:
    """A zero vector, and one that is not finite, are told as the image's own fault; the others are normalized where that is asked."""
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    embedded = images.collected(4, 2, [Passed(range(4), vectors, {})], True, None)
    assert {row: error.kind for row, error in embedded.rejected.items()} == {1: "refused", 2: "refused", 3: "refused"}
    np.testing.assert_allclose(embedded.vectors, [[0.6, 0.8], [0, 0], [0, 0], [0, 0]])
