"""Two versions of the same work, turn and turn about in one process.

The machine's other load changes from minute to minute. So the versions take slices of the same rows in turns, the one
first and then the other: what disturbs one disturbs the other, and neither always finds the rows in a warm cache.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from tasks.runs import work

WORKERS = ChromaToPgvector().workers


def slices(numbers: list[int]) -> list[list[list[int]]]:
    """The flow's chunks, a turn having one for each worker; more turns than the flow has where batches allow it."""
    chunks = work.chunks(numbers, WORKERS * 2)
    return [chunks[at : at + WORKERS] for at in range(0, len(chunks), WORKERS)]


def in_turns(pieces: Sequence[Any], *versions: Callable[[Any], Any]) -> list[float]:
    """Seconds that each version took over all slices; who goes first changes with every slice."""
    seconds = [0.0] * len(versions)
    for turn, piece in enumerate(pieces):
        for place in range(len(versions)):
            which = (turn + place) % len(versions)
            seconds[which] += timed(partial(versions[which], piece))
    return seconds


def together(jobs: list[Callable[[], Any]], workers: int) -> None:
    """Does all of them, ``workers`` at a time."""
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


def timed(do: Callable[[], Any]) -> float:
    """Seconds that it took."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for the code that runs in this process."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
