"""Somebody who searches ``match_bora_docs`` all the while: ``python -m benchmarks.reader`` DATABASE_URL FILE.

A process of its own, so that no thread of the benchmark's is in its way. FILE gets a line a query: when it was asked, by
time.time(), and how many seconds it took.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

from benchmarks import fixtures

PAUSE = 0.02
QUERY = "SELECT id, content, similarity FROM match_bora_docs(%s, 0.0, 10)"


def read(url: str, file: Path) -> None:
    """Searches until it is ended."""
    queries = fixtures.vectors_of(500)
    with psycopg.connect(url, autocommit=True) as connection, file.open("w") as lines:
        register_vector(connection)
        for at in range(sys.maxsize):
            query, asked = queries[at % len(queries)], time.time()
            connection.execute(QUERY, (query,), binary=True).fetchall()
            print(asked, time.time() - asked, file=lines, flush=True)
            time.sleep(PAUSE)


@contextmanager
def reading(url: str, file: Path) -> Iterator[None]:
    """A reader is there while the body runs."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.reader", url, str(file)])
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the reader ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait(20)


def latencies(file: Path, start: float, end: float) -> np.ndarray:
    """Seconds, float64[n], of what was asked between these times."""
    asked = np.array([line.split() for line in file.read_text().splitlines() if line.count(" ") == 1], float)
    inside = (asked[:, 0] >= start) & (asked[:, 0] < end)
    taken: np.ndarray = asked[inside, 1]
    return taken


if __name__ == "__main__":
    read(sys.argv[1], Path(sys.argv[2]))
