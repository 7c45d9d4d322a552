"""Images before a model on this machine, and what becomes of those that have passed it."""

import time
from collections.abc import Iterable

import numpy as np
from PIL import Image

from tasks.embedders.interface import Embedded, OnMade, RowError
from tasks.embedders.local.lanes import Passed
from tasks.embedders.pictures import MAX_PIXELS, decode

SLICE = 512
"""Images between two answers to ``on_made`` at most, and …"""
SECONDS = 20.0
"""… the longest that any waits for one: so much is lost where a run is killed."""


def opened(image: bytes) -> Image.Image | RowError:
    """The picture in RGB. How large one may be is for its content to say, which has measured it; here the limit is Pillow's."""
    return decode(image, 2 * MAX_PIXELS)


def collected(
    count: int, dimensions: int, passes: Iterable[Passed], normalized: bool, on_made: OnMade | None
) -> Embedded:
    """The vectors of ``count`` images, divided by their lengths where ``normalized``, and handed over as they come. Rejected
    is also an image whose vector is zero or not finite, which no index could find."""
    vectors = np.zeros((count, dimensions), np.float32)
    rejected: dict[int, RowError] = {}
    waiting: list[int] = []
    since = time.monotonic()

    def hand_over() -> None:
        nonlocal waiting, since
        rows, waiting, since = waiting, [], time.monotonic()
        if on_made and rows:
            on_made(rows, vectors[rows])

    try:
        for done in passes:
            rejected.update(done.rejected)
            for row, vector in zip(done.rows, done.vectors, strict=True):
                if not (np.isfinite(vector).all() and vector.any()):
                    rejected[row] = RowError("refused", "the model's vector of this image is zero or not finite")
                    continue
                vectors[row] = vector / np.linalg.norm(vector) if normalized else vector
                waiting.append(row)
            if len(waiting) >= SLICE or time.monotonic() - since > SECONDS:
                hand_over()
    finally:
        hand_over()
    return Embedded(vectors, rejected)
