"""Work that goes on ahead of who takes its results."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from tasks.base.ahead import ahead


def wait_until(condition: object, seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_order_and_all_of_them(workers: int) -> None:
    """Whichever thread is done first, and however often the taker is faster than the threads."""

    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * 2

    for _ in range(20):
        assert list(ahead(str, range(50), workers, 3)) == [str(n) for n in range(50)]
    assert list(ahead(slow, range(50), workers, 8)) == [n * 2 for n in range(50)]
    assert list(ahead(slow, [], workers, 8)) == []


def test_threads_work_at_once_while_the_taker_does_something_else() -> None:
    """The next ones are made without being asked for."""
    barrier = threading.Barrier(3)
    done: list[int] = []

    def together(number: int) -> int:
        barrier.wait(5)
        done.append(number)
        return number

    results = ahead(together, range(6), 3, 6)
    assert next(results) == 0
    wait_until(lambda: len(done) == 6)
    assert list(results) == [1, 2, 3, 4, 5]


def test_no_more_is_made_than_there_is_room_for() -> None:
    """Each begins only where it would fit if it were as heavy as the heaviest so far; one at least is always begun."""
    begun: list[int] = []

    def make(weight: int) -> int:
        begun.append(weight)
        return weight

    results = ahead(make, [10] * 20, 2, 35, weight=float)
    next(results)
    time.sleep(0.05)
    assert 3 <= len(begun) <= 5, "one is taken, three fit, one more may have begun before a weight was known"
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 6
    assert list(ahead(make, [100] * 5, 2, 1, weight=float)) == [100] * 5


def test_errors_come_in_their_place_and_nothing_is_begun_after_them() -> None:
    """What was made before is taken first; an error of the inputs is one of them."""
    begun: list[int] = []

    def fail(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = ahead(fail, range(100), 2, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) < 10

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("inputs")

    texts = ahead(str, broken(), 2, 4)
    assert next(texts) == "1"
    with pytest.raises(KeyError, match="inputs"):
        next(texts)


def test_who_stops_early_leaves_no_thread_behind() -> None:
    """What has begun is waited for."""
    before = threading.active_count()
    results = ahead(lambda n: time.sleep(0.01) or n, range(1000), 4, 8)
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert threading.active_count() == before


def test_what_is_taken_is_let_go() -> None:
    """At once, and not when garbage is next collected: results may be large."""

    class Result:
        pass

    gc.disable()
    try:
        results = ahead(lambda _: Result(), range(10), 2, 4)
        taken = [weakref.ref(next(results)) for _ in range(9)]
        next(results)
        wait_until(lambda: [ref() for ref in taken] == [None] * 9)  # a thread may be about to let go
    finally:
        gc.enable()
