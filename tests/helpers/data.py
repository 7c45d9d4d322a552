"""Records for the tests, the same for the same numbers."""

import numpy as np
import pyarrow as pa

from tasks.stores import canonical
from tasks.stores.interface import records, vector_column


def records_of(count: int, dimensions: int = 8, start: int = 0, seed: int = 0) -> pa.RecordBatch:
    """``count`` records row-0000000 …: documents, four metadata keys, every seventh with a uri, random unit vectors."""
    matrix = np.random.default_rng(seed + start).standard_normal((count, dimensions)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    numbers = range(start, start + count)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"row-{i:07d}" for i in numbers]),
            pa.array(
                [None if i % 11 == 0 else "" if i % 13 == 0 else f"document {i} about topic {i % 17}" for i in numbers]
            ),
            pa.array(
                [
                    None
                    if i % 5 == 0
                    else canonical.dumps({"number": i, "half": i / 2, "even": i % 2 == 0, "tags": ["a", str(i % 3)]})
                    for i in numbers
                ],
                pa.string(),
            ),
            pa.array([f"s3://bucket/{i}" if i % 7 == 0 else None for i in numbers], pa.string()),
            vector_column(matrix),
        ],
        schema=records(dimensions),
    )
